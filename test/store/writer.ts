import { join } from 'node:path'

const CHILD = join(import.meta.dir, 'commanded-child.ts')
const running = new Set<{ kill(): Promise<void> }>()

/** Starts a store in a process of its own, for tests that do to its files what no open connection of ours may be in the way of. */
export async function writer(path: string) {
  const child = Bun.spawn([process.execPath, CHILD, path], { stdin: 'pipe', stdout: 'pipe' })
  const lines = linesOf(child.stdout)
  const answer = async (): Promise<Record<string, string>> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('the store in the other process has ended')
    return JSON.parse(value)
  }
  const self = {
    /** One command and its answer. */
    async tell(command: string) {
      child.stdin.write(`${command}\n`)
      await child.stdin.flush()
      return answer()
    },
    /** Ends it as `kill -9` does. */
    async kill() {
      running.delete(self)
      child.kill('SIGKILL')
      await child.exited
    },
  }
  running.add(self)
  await answer()
  return self
}

/** Ends what a failed test has left running. */
export async function endWriters(): Promise<void> {
  for (const each of running) await each.kill()
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true })
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      yield text.slice(0, end)
      text = text.slice(end + 1)
    }
  }
}
