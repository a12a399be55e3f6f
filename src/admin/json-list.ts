import { json } from './error.ts'

/** Items that are written in one turn: callers of the proxy wait for no more than these. */
const SLICE = 500

/**
 * A JSON array, written slice by slice where it is long: requests are served in between. A list of a hundred thousand keys at once
 * would hold up everybody for half a second.
 * in: the items as they are now, which nobody changes; how one of them is shown
 */
export function jsonList<T>(items: readonly T[], show: (item: T) => unknown): Response {
  if (items.length <= SLICE) return json(200, items.map(show))
  const encoder = new TextEncoder()
  let from = 0
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        // What waits in line meanwhile goes first.
        await new Promise(resolve => setImmediate(resolve))
        const slice = items.slice(from, from + SLICE)
        const text = slice.map(item => JSON.stringify(show(item))).join(',')
        controller.enqueue(encoder.encode((from === 0 ? '[' : ',') + text))
        from += SLICE
        if (from < items.length) return
        controller.enqueue(encoder.encode(']'))
        controller.close()
      },
    },
    { highWaterMark: 0 },
  )
  return new Response(body, { headers: json(200, null).headers })
}
