/** What every dialect reads of a chat answer, or of the chunks of one. Members are the upstream's: any may be missing or odd. */
import type { Json } from './dialect.ts'

/** Text of a `content`: some servers send it as an array of parts. Parts of other kinds say nothing that callers could be told. */
export function contentText(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  let text = ''
  for (const part of content) {
    if (typeof part === 'string') text += part
    else if (isRecord(part) && (part.type === 'text' || part.type === 'output_text')) text += stringOf(part.text)
  }
  return text
}

/** A tool call of a whole answer. `id` is '' where the upstream gave none. */
export type WholeCall = { readonly id: string; readonly name: string; readonly args: string }

/**
 * The tool calls of a whole message: each element is a call of its own, whatever ids say. `function_call`, which `tool_calls`
 * replaced, is one call without an id. Without a name there is nothing that a caller could run.
 */
export function wholeCalls(message: Json): WholeCall[] {
  const calls: WholeCall[] = []
  for (const { id, name, args } of piecesOf(message)) if (name !== '') calls.push({ id, name, args })
  return calls
}

/** A tool call of a stream, as far as it is known. The same object stands for it to the end. */
export type StreamedCall = { id: string; name: string }

type OpenCall = StreamedCall & { readonly index: number | undefined; readonly args: ObjectEnd }

/**
 * Puts the pieces of streamed tool calls where they belong. OpenAI gives each piece an `index`, and the first one id and name;
 * other servers leave out the index, give 0 to every call, or say id and name in each piece again.
 */
export class StreamedCalls {
  readonly #calls: OpenCall[] = []
  /** The call that got the latest piece. */
  #latest: OpenCall | undefined

  /** in: the `delta` of a choice. out: what each of its pieces adds to which call; the call's `id` and `name` are told in it */
  read(delta: Json): { call: StreamedCall; args: string }[] {
    return piecesOf(delta).map(piece => {
      const call = this.#callOf(piece)
      call.id ||= piece.id
      // Once: servers that say the name in each piece mean the same one.
      call.name ||= piece.name
      call.args.see(piece.args)
      this.#latest = call
      return { call, args: piece.args }
    })
  }

  #callOf(piece: Piece): OpenCall {
    const known = this.#knownOf(piece)
    if (known && !begins(piece, known)) return known
    const call: OpenCall = { index: piece.index, id: '', name: '', args: new ObjectEnd() }
    this.#calls.push(call)
    return call
  }

  #knownOf({ index, id }: Piece): OpenCall | undefined {
    const isMeant = (call: OpenCall) => index === undefined || call.index === index
    const sameId = id === '' ? undefined : this.#calls.findLast(call => isMeant(call) && call.id === id)
    return sameId ?? (index === undefined ? this.#latest : this.#calls.findLast(isMeant))
  }
}

/** Whether a piece is the first one of another call than the one that its index or id, or the order, lead to. */
function begins({ index, id, name, args }: Piece, known: OpenCall): boolean {
  if (name === '') {
    // An id alone, where nothing but ids tells calls apart. With arguments it is a server that makes up an id for each piece.
    return index === undefined && id !== '' && known.id !== '' && known.id !== id && args === ''
  }
  if (known.name === '') return id !== '' && known.id !== '' && known.id !== id
  if (known.name !== name) return true
  if (id !== '' && known.id !== '' && known.id !== id) return true
  // The same name once more is said of the same call, unless its arguments were complete.
  return known.args.isReached && args.trim() !== ''
}

type Piece = { index: number | undefined; id: string; name: string; args: string }

function piecesOf({ tool_calls: calls, function_call: legacy }: Json): Piece[] {
  const pieces: Piece[] = []
  for (const call of Array.isArray(calls) ? calls : []) {
    if (!isRecord(call)) continue
    const index = typeof call.index === 'number' ? call.index : undefined
    pieces.push({ index, id: stringOf(call.id), ...calledOf(call.function) })
  }
  if (pieces.length === 0 && isRecord(legacy)) pieces.push({ index: undefined, id: '', ...calledOf(legacy) })
  return pieces
}

function calledOf(called: unknown): { name: string; args: string } {
  if (!isRecord(called)) return { name: '', args: '' }
  const { name, arguments: args } = called
  return { name: stringOf(name), args: isRecord(args) ? objectText(args) : stringOf(args) }
}

/** Some servers send the arguments as the object itself. An empty one says nothing: text may follow it. */
function objectText(args: Json): string {
  const text = JSON.stringify(args)
  return text === '{}' ? '' : text
}

/** Watches for the end of the first object in a text that comes in pieces, without keeping it. */
class ObjectEnd {
  isReached = false
  #depth = 0
  #isInString = false
  #isEscaped = false

  see(text: string): void {
    for (let at = 0; at < text.length && !this.isReached; at += 1) {
      const char = text[at]
      if (this.#isEscaped) this.#isEscaped = false
      else if (this.#isInString) {
        if (char === '\\') this.#isEscaped = true
        else if (char === '"') this.#isInString = false
      } else if (char === '"') this.#isInString = true
      else if (char === '{' || char === '[') this.#depth += 1
      else if (char === '}' || char === ']') {
        this.#depth -= 1
        this.isReached = this.#depth <= 0
      }
    }
  }
}

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function stringOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
