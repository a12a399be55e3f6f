/**
 * Writes a text and waits until it is out. A reader that has gone is no error: there is nobody to tell. `Bun.write` would
 * truncate a file that the stream is redirected to, and so lose what `>>` was meant to keep.
 */
export function say(stream: NodeJS.WriteStream, text: string): Promise<void> {
  if (text === '') return Promise.resolve()
  const { promise, resolve } = Promise.withResolvers<void>()
  stream.once('error', () => resolve())
  stream.write(text, () => resolve())
  return promise
}
