/**
 * What is used of the module `ws` that the runtime carries: the client of the npm package of that name, with `proxy` and `tls`
 * as the runtime's own `WebSocket` takes them. Unlike that one it tells what an upstream answers in place of 101, when what was
 * sent is out, and it bounds what it takes in.
 * Source: Bun documentation, "Node.js compatibility", and the API of the npm package `ws`
 */
declare module 'ws' {
  import type { EventEmitter } from 'node:events'
  import type { IncomingMessage } from 'node:http'
  import type { TlsOptions } from '../../lib/fetch.ts'

  export type ClientOptions = {
    headers?: Record<string, string>
    perMessageDeflate?: boolean
    /** Bytes of one message; a larger one ends the connection with 1009. */
    maxPayload?: number
    /** Milliseconds that the other side has to answer a Close frame. */
    closeTimeout?: number
    followRedirects?: boolean
    tls?: TlsOptions
    proxy?: string
  }

  export class WebSocket extends EventEmitter<{
    open: []
    /** Text comes as its bytes, which are valid UTF-8. */
    message: [data: Buffer<ArrayBuffer>, isBinary: boolean]
    pong: [data: Buffer]
    error: [error: Error]
    close: [code: number, reason: Buffer]
    'unexpected-response': [request: unknown, response: IncomingMessage]
  }> {
    constructor(url: string, options: ClientOptions)
    readonly bufferedAmount: number
    readonly isPaused: boolean
    /** `onWritten` is called once nothing is buffered any more, or with an error when the connection ends before. */
    send(data: string | Uint8Array, onWritten?: (error?: Error | null) => void): void
    ping(): void
    pause(): void
    resume(): void
    close(code?: number, reason?: string): void
    terminate(): void
  }
}
