/**
 * Writes a text and waits until it is out. A reader that has gone is no error: there is nobody to tell. `Bun.write` would
 * truncate a file that the stream is redirected to, and so lose what `>>` was meant to keep.
 */
export function say(stream: NodeJS.WriteStream, text: string): Promise<void> {
  if (text === '') return Promise.resolve()
  const { promise, resolve } = Promise.withResolvers<void>()
  const end = () => resolve()
  stream.once('error', end)
  stream.write(text, error => {
    // A stream that is written to line by line would otherwise warn, on standard error, of all who listen. A failure is told
    // here first, and as an event afterwards, which must not go unheard.
    if (!error) stream.off('error', end)
    resolve()
  })
  return promise
}
