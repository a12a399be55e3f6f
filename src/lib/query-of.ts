/** The query of a URL with its `?`, as it came; '' where there is none. */
export function queryOf(url: string): string {
  const fragment = url.indexOf('#')
  const end = fragment < 0 ? url.length : fragment
  const start = url.indexOf('?')
  return start < 0 || start > end ? '' : url.slice(start, end)
}
