import { parseFromTokenizer } from 'music-metadata'
import { AbstractTokenizer, EndOfStreamError, type IFileInfo, type IReadChunkOptions } from 'strtok3/core'
import type { Upload } from './upload.ts'

/**
 * What is read to find how long a recording is: headers and indexes, never the sound. Each look costs the time of everybody
 * else: files can be made of nothing but headers.
 */
const LOOKED_AT_BYTES_MAX = 2 * 1024 * 1024
const LOOKS_MAX = 400

/**
 * How long an uploaded recording is, in seconds, from the headers of its container; undefined where they do not tell.
 * source: proxy-03 §9
 */
export async function recordedSeconds({ spool, parts }: Upload): Promise<number | undefined> {
  const file = parts.find(({ name, filename }) => name === 'file' && filename !== undefined)
  if (!file) return undefined
  try {
    const { format } = await parseFromTokenizer(new PartTokenizer(spool, file.valueStart, file.valueEnd), { skipCovers: true })
    const { duration } = format
    return duration !== undefined && Number.isFinite(duration) && duration > 0 ? duration : undefined
  } catch {
    // No recording that is known, or one that would have to be read further: its length is not told.
    return undefined
  }
}

/** Reads a part of an upload at any place, up to LOOKED_AT_BYTES_MAX and LOOKS_MAX in all. */
class PartTokenizer extends AbstractTokenizer {
  readonly fileInfo: IFileInfo
  private bytesLeft = LOOKED_AT_BYTES_MAX
  private looksLeft = LOOKS_MAX

  constructor(
    private readonly spool: Upload['spool'],
    private readonly start: number,
    private readonly end: number,
  ) {
    super()
    this.fileInfo = { size: end - start }
  }

  supportsRandomAccess(): boolean {
    return true
  }

  setPosition(position: number): void {
    this.position = position
  }

  async readBuffer(buffer: Uint8Array, options?: IReadChunkOptions): Promise<number> {
    const length = await this.peekBuffer(buffer, options)
    this.position = (options?.position ?? this.position) + length
    return length
  }

  async peekBuffer(buffer: Uint8Array, options?: IReadChunkOptions): Promise<number> {
    const { length, position, mayBeLess } = this.normalizeOptions(buffer, options)
    this.bytesLeft -= length
    this.looksLeft -= 1
    if (this.bytesLeft < 0 || this.looksLeft < 0) throw new EndOfStreamError()
    const from = Math.min(this.start + position, this.end)
    const bytes = await this.spool.read(from, Math.min(from + length, this.end))
    if (bytes.byteLength < length && !mayBeLess) throw new EndOfStreamError()
    buffer.set(bytes)
    return bytes.byteLength
  }
}
