import type { StreamTranslator } from '../dialects/dialect.ts'
import { openAiEnvelope } from '../errors.ts'
import { binaryToUtf8, parseBounded, utf8ToBinary } from '../wire/members.ts'
import type { Framer } from './answer.ts'
import { type AttemptInput, askedOf } from './attempt-input.ts'
import { DONE } from './rewrite-chunks.ts'

const CHAT_FRAMER: Framer = {
  // A line break in JSON is white space, but would end the `data` line: an event that came in several lines goes out in one.
  chunk: data => `data: ${data.includes('\n') ? data.replaceAll('\n', ' ') : data}\n\n`,
  end: () => `data: ${DONE}\n\n`,
  error(error) {
    const { message, type, code } = openAiEnvelope(error).error
    const document = { error: { message, type, ...(code === undefined ? {} : { code }) } }
    return utf8ToBinary(`event: error\ndata: ${JSON.stringify(document)}\n\n`)
  },
}

function translatingFramer(translator: StreamTranslator): Framer {
  return {
    chunk: data => utf8ToBinary(translator.chunk({ ...Object(parseBounded(binaryToUtf8(data))) })),
    end: () => utf8ToBinary(translator.end()),
    error: (error, last) => utf8ToBinary(translator.error(error, last)),
  }
}

/** How the stream of a request goes out: also of one that broke before its upstream answered. */
export function framerOf(input: AttemptInput): Framer {
  const { dialect } = input.endpoint
  return dialect ? translatingFramer(dialect.stream(askedOf(input))) : CHAT_FRAMER
}
