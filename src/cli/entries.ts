/** Resources as the admin API gives them, and which one a name means. */

import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { type AdminClient, printJson, warningLines } from './admin-client.ts'
import { CommandFailed, done, type Io, type Output } from './command.ts'
import { type Column, properties, table } from './table.ts'

/** `value` is read leniently: a gateway of another version may know more members. */
export type Entry = { id: string; value: Readonly<Record<string, unknown>>; revision: number }

/** A kind of resource: its path behind `/admin/v1/`, and what one is called in messages. */
export type Noun = { path: string; one: string; many: string }

export const KEYS: Noun = { path: 'apikeys', one: 'key', many: 'keys' }
export const MODELS: Noun = { path: 'models', one: 'model', many: 'models' }
export const PROVIDER_KEYS: Noun = { path: 'provider_keys', one: 'provider key', many: 'provider keys' }

export async function list(client: AdminClient, { path }: Noun): Promise<Entry[]> {
  const { body } = await client.ask('GET', path)
  if (!Array.isArray(body)) throw unexpected(client)
  return body.map(each => entryOf(each, client))
}

/** throws: CommandFailed where it is no entry */
export function entryOf(body: unknown, client: Pick<AdminClient, 'url'>): Entry {
  if (!isRecord(body)) throw unexpected(client)
  const { id, value, revision } = body
  if (typeof id !== 'string' || !isRecord(value) || typeof revision !== 'number') throw unexpected(client)
  return { id, value, revision }
}

/** What is there answers, and is no admin API. */
export function unexpected({ url }: Pick<AdminClient, 'url'>): CommandFailed {
  return new CommandFailed(`${url} did not answer as the admin API of a gateway does: see --url`)
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function nameOf({ value }: Entry): string {
  return textOf(value.display_name)
}

export function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : ''
}

export function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter(each => typeof each === 'string') : []
}

/** Characters of an id from which its beginning is enough. */
const ID_BEGINNING_MIN = 8

/**
 * The entry that is meant: by its id, its exact name, or the beginning of its id.
 * throws: CommandFailed where there is none, with the nearest name, and where there are several, with their ids
 */
export function resolve(entries: readonly Entry[], wanted: string, { one, many }: Noun): Entry {
  const byId = entries.find(({ id }) => id === wanted)
  if (byId) return byId
  // The empty name is that of every key without one.
  const named = wanted === '' ? [] : entries.filter(entry => nameOf(entry) === wanted)
  const found =
    named.length > 0 || wanted.length < ID_BEGINNING_MIN ? named : entries.filter(({ id }) => id.startsWith(wanted.toLowerCase()))
  const [first, second] = found
  if (first && !second) return first
  const shown = printable(wanted)
  if (first) {
    const ids = found.map(({ id }) => id)
    throw new CommandFailed(`${found.length} ${many} are called "${shown}": say which one by its id: ${ids.join(', ')}`)
  }
  const near = nearest(
    wanted,
    entries.map(nameOf).filter(name => name !== ''),
  )
  const hint = near === undefined ? `aisix ${many.replace(' ', '-')} list shows all` : `did you mean "${printable(near)}"?`
  throw new CommandFailed(`there is no ${one} "${shown}": ${hint}`)
}

/** A list as a table or as JSON. */
export function showList(
  entries: readonly Entry[],
  columns: readonly Column<Entry>[],
  noun: Noun,
  isJson: boolean,
  io: Io,
): Output {
  if (isJson) return done(printJson(entries))
  if (entries.length === 0) return done('', `there are no ${noun.many} yet\n`)
  return done(table(columns, entries, io))
}

/** One entry: its members a line each, those that hold others as JSON; in JSON as the API has it. */
export function showEntry(entry: Entry, isJson: boolean): Output {
  if (isJson) return done(printJson(entry))
  const { id, value, revision } = entry
  const members = Object.entries(value).map(([name, member]): [string, string] => [
    name,
    isRecord(member) || Array.isArray(member) ? JSON.stringify(member) : textOf(member),
  ])
  return done(properties([['id', id], ...members, ['revision', String(revision)]]))
}

/** Deletes the one that is meant, and tells what is left without it. */
export async function remove(client: AdminClient, noun: Noun, wanted: string, isJson: boolean): Promise<Output> {
  const entry = resolve(await list(client, noun), wanted, noun)
  const { body, warnings } = await client.ask('DELETE', `${noun.path}/${encodeURIComponent(entry.id)}`)
  return done(isJson ? printJson(body) : `${noun.one} ${label(entry)} deleted\n`, warningLines(warnings))
}

/** `"name" (id)`, for sentences. */
export function label(entry: Entry): string {
  const name = nameOf(entry)
  return name === '' ? entry.id : `"${printable(name)}" (${entry.id})`
}
