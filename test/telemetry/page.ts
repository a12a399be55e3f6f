export type PageSample = { name: string; labels: Record<string, string>; value: number }

/** The samples of a page in Prometheus' text format, buckets left out; fails on a line that is none. */
export function samplesOf(page: string): PageSample[] {
  const samples: PageSample[] = []
  for (const line of page.split('\n')) {
    if (line === '' || line.startsWith('# HELP ') || line.startsWith('# TYPE ')) continue
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (!match?.[1] || !match[3]) throw new Error(`no sample: ${line}`)
    if (match[1].endsWith('_bucket')) continue
    const labels: Record<string, string> = {}
    for (const [, name = '', value = ''] of (match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_all, character: string) => (character === 'n' ? '\n' : character))
    }
    samples.push({ name: match[1], labels, value: Number(match[3]) })
  }
  return samples
}
