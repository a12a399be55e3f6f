/**
 * Judges values by JSON Schema, 2020-12, as far as the reference of the admin API uses it. A keyword that it does not know is an
 * error, so that none is passed over in silence.
 * source: JSON Schema 2020-12, core and validation
 */
import { isRecord } from './harness.ts'

/** in: `definitions`, what `#/components/schemas/` leads to. out: a line for each place where the value does not fit */
export function misfits(definitions: Readonly<Record<string, unknown>>, schema: unknown, value: unknown, place = ''): string[] {
  if (!isRecord(schema)) throw new Error(`expected a schema at ${place}`)
  const found: string[] = []
  for (const [keyword, rule] of Object.entries(schema)) found.push(...judge(keyword, rule))
  return found

  function judge(keyword: string, rule: unknown): string[] {
    const at = (inner: unknown, each: unknown, step: string | number) => misfits(definitions, inner, each, `${place}/${step}`)
    const fits = (inner: unknown) => misfits(definitions, inner, value, place).length === 0
    const when = (isWrong: boolean) => (isWrong ? [`${place || '/'}: ${keyword} ${JSON.stringify(rule)}`] : [])
    const members = isRecord(value) ? Object.entries(value) : []
    const bound = Number(rule)
    switch (keyword) {
      case '$ref': {
        const target = definitions[String(rule).replace('#/components/schemas/', '')]
        return misfits(definitions, target, value, place)
      }
      case 'type':
        return when(!listOf(rule).some(type => isOfType(value, type)))
      case 'const':
        return when(value !== rule)
      case 'enum':
        return when(!listOf(rule).includes(value))
      case 'allOf':
        return listOf(rule).flatMap(each => misfits(definitions, each, value, place))
      case 'anyOf':
        return when(!listOf(rule).some(fits))
      case 'oneOf':
        return when(listOf(rule).filter(fits).length !== 1)
      case 'not':
        return when(fits(rule))
      case 'required':
        return when(isRecord(value) && listOf(rule).some(member => !Object.hasOwn(value, String(member))))
      case 'properties':
        if (!isRecord(rule)) throw new Error(`expected members at ${place}`)
        return members.flatMap(([name, each]) => (Object.hasOwn(rule, name) ? at(rule[name], each, name) : []))
      case 'additionalProperties': {
        const known = isRecord(schema) && isRecord(schema.properties) ? schema.properties : {}
        const others = members.filter(([name]) => !Object.hasOwn(known, name))
        return rule === false ? when(others.length > 0) : others.flatMap(([name, each]) => at(rule, each, name))
      }
      case 'propertyNames':
        return members.flatMap(([name]) => at(rule, name, name))
      case 'minProperties':
        return when(isRecord(value) && members.length < bound)
      case 'items':
        return Array.isArray(value) ? value.flatMap((each, index) => at(rule, each, index)) : []
      case 'minItems':
        return when(Array.isArray(value) && value.length < bound)
      case 'maxItems':
        return when(Array.isArray(value) && value.length > bound)
      case 'uniqueItems':
        return when(Array.isArray(value) && new Set(value.map(each => JSON.stringify(each))).size < value.length)
      case 'minLength':
        return when(typeof value === 'string' && [...value].length < bound)
      case 'maxLength':
        return when(typeof value === 'string' && [...value].length > bound)
      case 'pattern':
        return when(typeof value === 'string' && !new RegExp(String(rule), 'u').test(value))
      case 'minimum':
        return when(typeof value === 'number' && value < bound)
      case 'maximum':
        return when(typeof value === 'number' && value > bound)
      case 'format':
        return when(typeof value === 'string' && Number.isNaN(Date.parse(value)))
      case 'title':
      case 'description':
      case 'default':
      case 'examples':
      case 'writeOnly':
      case 'x-alias-of':
        return []
      default:
        throw new Error(`expected a keyword that is judged here, not ${keyword} at ${place}`)
    }
  }
}

function listOf(rule: unknown): unknown[] {
  return Array.isArray(rule) ? rule : [rule]
}

function isOfType(value: unknown, type: unknown): boolean {
  switch (type) {
    case 'null':
      return value === null
    case 'array':
      return Array.isArray(value)
    case 'object':
      return isRecord(value)
    case 'integer':
      return Number.isInteger(value)
    case 'string':
    case 'number':
    case 'boolean':
      return typeof value === type
    default:
      throw new Error(`expected a type of JSON, not ${type}`)
  }
}
