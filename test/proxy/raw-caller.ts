/** A caller at the level of TCP: for requests that no client would send, and for reading an answer while it comes. */

export type RawCaller = {
  send(bytes: string | Uint8Array): void
  /** What has come so far, as latin1 text. */
  received(): string
  /** Resolves with everything that came once it holds `text`; fails when the connection closes before. */
  receives(text: string): Promise<string>
  /** Resolves with everything that came once the other side has closed the connection. */
  closed: Promise<string>
  /** Ends the connection as a program that exits does. */
  leave(): void
}

export async function rawCaller(port: number): Promise<RawCaller> {
  let received = ''
  let isClosed = false
  const waiting: { text: string; resolve: (received: string) => void; reject: (error: Error) => void }[] = []
  const closed = Promise.withResolvers<string>()
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port,
    socket: {
      data(_socket, bytes) {
        received += bytes.toString('latin1')
        for (const each of waiting.filter(({ text }) => received.includes(text))) each.resolve(received)
      },
      close() {
        isClosed = true
        for (const { text, reject } of waiting) reject(new Error(`closed before ${JSON.stringify(text)} came; got: ${received}`))
        closed.resolve(received)
      },
      error() {},
    },
  })
  return {
    send(bytes) {
      socket.write(bytes)
      socket.flush()
    },
    received: () => received,
    receives(text) {
      if (received.includes(text)) return Promise.resolve(received)
      if (isClosed) return Promise.reject(new Error(`closed before ${JSON.stringify(text)} came; got: ${received}`))
      const { promise, resolve, reject } = Promise.withResolvers<string>()
      promise.catch(() => {})
      waiting.push({ text, resolve, reject })
      return promise
    },
    closed: closed.promise,
    leave() {
      socket.terminate()
    },
  }
}

/** One request on a connection of its own, which the request asks to be closed; the whole answer as latin1 text. */
export async function rawAnswer(port: number, request: string | Uint8Array): Promise<string> {
  const caller = await rawCaller(port)
  caller.send(request)
  return await caller.closed
}

/** A POST as text, with the headers that it needs. */
export function rawPost(path: string, body: string, headers: readonly string[]): string {
  const lines = [
    `POST ${path} HTTP/1.1`,
    'Host: gateway.test',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    ...headers,
  ]
  return `${lines.join('\r\n')}\r\n\r\n${body}`
}
