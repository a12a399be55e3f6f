import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { GatewayError } from '../errors.ts'

/** A longer body goes to the disk. */
const MEMORY_BYTES_MAX = 256 * 1024
/** Seconds after which a disk may have room again: that of the uploads that are over by then. */
const RETRY_SECS = 5
/** Bytes that are read from the disk at once. */
const READ_BYTES = 32 * 1024

/** A stretch of a spool, or bytes in place of one. */
export type Stretch = { from: number; to: number } | Uint8Array<ArrayBuffer>

/**
 * The body of an upload while its request is under way: short ones in memory, others in a file that has no name any more, so
 * that nothing of it is left however the process ends. It can be read as often as a request is tried.
 */
export class Spool {
  bytes = 0
  private held: Uint8Array[] = []
  private file: FileHandle | undefined
  private reading = 0
  private isClosed = false

  /** in: the folder for files */
  constructor(private readonly folder: string) {}

  /**
   * Takes the next piece, which is gone afterwards; whoever sends it waits until the disk has it.
   * throws: upload_unavailable
   */
  async append(piece: Uint8Array): Promise<void> {
    const at = this.bytes
    this.bytes += piece.byteLength
    if (!this.file && this.bytes <= MEMORY_BYTES_MAX) {
      // The runtime may use the memory of a piece again.
      this.held.push(new Uint8Array(piece))
      return
    }
    try {
      if (!this.file) {
        this.file = await openNameless(this.folder)
        const held = Buffer.concat(this.held)
        this.held = []
        await writeAll(this.file, held, 0)
      }
      await writeAll(this.file, piece, at)
      free(piece)
    } catch (cause) {
      throw new GatewayError(
        'upload_unavailable',
        "the gateway could not keep the upload on its disk; the gateway's log has the cause under this request id",
        { cause, retryAfterSecs: RETRY_SECS },
      )
    } finally {
      if (this.isClosed) this.release()
    }
  }

  /** The bytes of `stretches`, one after another. They are read as they are asked for. */
  stream(stretches: readonly Stretch[]): ReadableStream<Uint8Array> {
    const pieces = this.pieces(stretches)
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await pieces.next()
          if (done) controller.close()
          else controller.enqueue(value)
        },
        async cancel() {
          await pieces.return()
        },
      },
      { highWaterMark: 0 },
    )
  }

  /** Bytes `from` to `to`, fewer where there are no more. */
  async read(from: number, to: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = Math.min(to, this.bytes)
    if (from >= end) return new Uint8Array()
    if (this.isClosed) throw new Error('the upload is over')
    const { file } = this
    if (!file) {
      // Joined once: whoever looks for something in it reads a few bytes at a time.
      if (this.held.length > 1) this.held = [Buffer.concat(this.held)]
      return new Uint8Array(this.held[0]?.subarray(from, end) ?? [])
    }
    const buffer = new Uint8Array(end - from)
    this.reading += 1
    try {
      let filled = 0
      while (filled < buffer.byteLength) {
        const { bytesRead } = await file.read(buffer, filled, buffer.byteLength - filled, from + filled)
        if (bytesRead === 0) throw new Error('the file of an upload has become shorter')
        filled += bytesRead
      }
      return buffer
    } finally {
      this.reading -= 1
      if (this.isClosed) this.release()
    }
  }

  /** The request is over: memory and disk are given back. What is being read is read to its end. */
  close(): void {
    this.isClosed = true
    this.release()
  }

  private release(): void {
    this.held = []
    // The number of a closed file may belong to another one at once: nobody may be reading.
    if (this.reading > 0) return
    const { file } = this
    this.file = undefined
    file?.close().catch(() => {})
  }

  private async *pieces(stretches: readonly Stretch[]): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    for (const stretch of stretches) {
      if (stretch instanceof Uint8Array) {
        if (stretch.byteLength > 0) yield stretch
        continue
      }
      for (let at = stretch.from; at < stretch.to; at += READ_BYTES) {
        yield await this.read(at, Math.min(at + READ_BYTES, stretch.to))
      }
    }
  }
}

/** A file that only we can read, and that is gone when it is closed. */
async function openNameless(folder: string): Promise<FileHandle> {
  const path = join(folder, `aisix-upload-${randomUUID()}`)
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    await unlink(path)
  } catch (error) {
    await file.close()
    throw error
  }
  return file
}

/** Gives the memory back at once: what waits for a collection would come to many times what is needed. */
function free({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  let written = 0
  while (written < bytes.byteLength) {
    const { bytesWritten } = await file.write(bytes, written, bytes.byteLength - written, at + written)
    written += bytesWritten
  }
}
