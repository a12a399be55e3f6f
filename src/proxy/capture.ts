import { member } from '../lib/member.ts'
import { parseBinary, skipString } from '../wire/members.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'

/** What was asked, as JSON text as it came: the messages, the prompt or the input. */
export function promptOf({ promptMember }: Endpoint, { text, spans }: Question): string {
  const span = spans.find(({ key }) => key === promptMember)
  return span ? text.slice(span.valueStart, span.valueEnd) : ''
}

/**
 * What was generated: the first choice's text, or the arguments of its tool calls where it has none. Answers are relayed that
 * are no JSON in their depth: of these nothing is kept, since what exporters want costs no caller its answer.
 */
export function responseOf(endpoint: Endpoint, answer: string): string {
  if (endpoint.answerMember !== 'choices') return ''
  let document: unknown
  try {
    document = JSON.parse(answer)
  } catch {
    return ''
  }
  const choice = first(member(document, 'choices'))
  const text = member(choice, 'text') ?? member(member(choice, 'message'), 'content')
  if (typeof text === 'string' && text !== '') return text
  const calls = member(member(choice, 'message'), 'tool_calls')
  if (!Array.isArray(calls)) return ''
  return calls.map((call: unknown) => String(member(member(call, 'function'), 'arguments') ?? '')).join('')
}

/** Text of a chunk that was found in its JSON; '' where it is none. in: binary text, and where the quoted value begins */
export function deltaAt(data: string, quote: number): string {
  try {
    const text = parseBinary(data.slice(quote, skipString(data, quote)))
    return typeof text === 'string' ? text : ''
  } catch {
    return ''
  }
}

function first(value: unknown): unknown {
  return Array.isArray(value) ? value[0] : undefined
}
