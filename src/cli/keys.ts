/** `aisix keys …`: the keys that callers present. */
import { type AdminClient, CONNECTION, connect, JSON_OUTPUT, printJson, warningLines } from './admin-client.ts'
import { type Argument, type Command, CommandFailed, done, type Io, type Output, UsageError } from './command.ts'
import {
  type Entry,
  entryOf,
  isRecord,
  KEYS,
  label,
  list,
  nameOf,
  remove,
  resolve,
  showEntry,
  showList,
  textOf,
  textsOf,
  unexpected,
} from './entries.ts'
import { LIMIT_OPTIONS, limitsOf, shownLimits } from './limits.ts'
import type { Column } from './table.ts'
import { parseLength, parseTime } from './time.ts'

const KEY: Argument = { name: 'KEY', about: 'Name or id of the key; the first 8 characters of an id are enough.' }
const COMMON = [JSON_OUTPUT, ...CONNECTION]

const create: Command = {
  words: ['keys', 'create'],
  summary: 'make a key and print it, once',
  about: `Makes a key for a caller. The key is printed on standard output and nowhere else: the gateway gets and keeps its hash alone, so that
nobody can print it again. What was made is told on standard error.`,
  args: [{ name: 'NAME', about: 'What to call the key; no other key may have the name.' }],
  options: [
    {
      name: 'model',
      value: 'ALIAS',
      isList: true,
      about: 'A model that it may use, or a pattern such as `vllm/*`; give it once for each.',
    },
    { name: 'all-models', about: 'Let it use every model.' },
    { name: 'team', value: 'ID', about: 'Team of the caller, for policies, budgets and records.' },
    { name: 'user', value: 'ID', about: 'User behind the key, for policies, budgets and records.' },
    { name: 'user-name', value: 'NAME', about: 'Name of the user, for records.' },
    {
      name: 'expires',
      value: 'TIME',
      about: 'When it ends: a length such as `90d`, a day, or a time such as `2030-01-31T00:00:00Z`.',
    },
    ...LIMIT_OPTIONS,
    ...COMMON,
  ],
  examples: [
    'aisix keys create "search frontend" --model llama-3-private --rpm 600 --expires 90d',
    'KEY=$(aisix keys create ci --all-models)',
  ],
  async run(given, io) {
    const name = given.arg('NAME')
    const models = given.flag('all-models') ? ['*'] : given.list('model')
    if (models.length === 0) throw new UsageError('a key may use the models that it is given: --model ALIAS, or --all-models')
    if (given.flag('all-models') && given.list('model').length > 0)
      throw new UsageError('--all-models and --model exclude each other')
    const expiry = given.text('expires')
    const document = {
      display_name: name,
      allowed_models: models,
      ...member('team_id', given.text('team')),
      ...member('user_id', given.text('user')),
      ...member('user_name', given.text('user-name')),
      ...member('expires_at', expiry === undefined ? undefined : expiryOf(expiry, io)),
      ...limitsOf(given),
    }
    const client = await connect(given, io)
    if ((await list(client, KEYS)).some(entry => nameOf(entry) === name)) {
      throw new CommandFailed(`there is a key of this name already: choose another, or give it a new key with aisix keys rotate`)
    }
    const plaintext = newKey()
    const { body, warnings } = await client.ask('POST', KEYS.path, { ...document, key_hash: hashOf(plaintext) })
    const entry = entryOf(body, client)
    if (given.flag('json')) return done(printJson({ entry, plaintext }), warningLines(warnings))
    return done(`${plaintext}\n`, `${warningLines(warnings)}key ${label(entry)} created; it is shown this once\n`)
  },
}

const COLUMNS: readonly Column<Entry>[] = [
  { title: 'NAME', value: nameOf, min: 12 },
  { title: 'STATE', value: stateOf },
  { title: 'MODELS', value: ({ value }) => textsOf(value.allowed_models).join(', ') || 'none', min: 8 },
  { title: 'TEAM', value: ({ value }) => textOf(value.team_id), min: 6 },
  { title: 'USER', value: ({ value }) => textOf(value.user_id), min: 6 },
  { title: 'LIMITS', value: ({ value }) => shownLimits(value.rate_limit), min: 8 },
  { title: 'EXPIRES', value: ({ value }) => textOf(value.expires_at).slice(0, 10) },
  { title: 'ID', value: ({ id }) => id, min: 9 },
]

const listKeys: Command = {
  words: ['keys', 'list'],
  summary: 'list all keys',
  about: 'Lists all keys in the order of their creation.',
  options: COMMON,
  async run(given, io) {
    const entries = await list(await connect(given, io), KEYS)
    const now = io.now().getTime()
    const columns = COLUMNS.map(column =>
      column.title === 'STATE' ? { ...column, value: (entry: Entry) => stateOf(entry, now) } : column,
    )
    return showList(entries, columns, KEYS, given.flag('json'), io)
  },
}

function stateOf({ value }: Entry, now = Number.NEGATIVE_INFINITY): string {
  if (value.disabled === true) return 'disabled'
  return Date.parse(textOf(value.expires_at)) < now ? 'expired' : 'active'
}

const show: Command = {
  words: ['keys', 'show'],
  summary: 'show all of one key',
  about: 'Shows everything about one key but the key itself, which nobody knows.',
  args: [KEY],
  options: COMMON,
  async run(given, io) {
    const client = await connect(given, io)
    return showEntry(resolve(await list(client, KEYS), given.arg('KEY'), KEYS), given.flag('json'))
  },
}

const rotate: Command = {
  words: ['keys', 'rotate'],
  summary: 'replace a key and print the new one, once',
  about: `Replaces a key: what it may do stays, the old key is refused at once. The new key is printed on standard output and nowhere else.`,
  args: [KEY],
  options: COMMON,
  async run(given, io) {
    const client = await connect(given, io)
    const { id } = resolve(await list(client, KEYS), given.arg('KEY'), KEYS)
    const { body } = await client.ask('POST', `${KEYS.path}/${encodeURIComponent(id)}/rotate`)
    const { entry, plaintext } = isRecord(body) ? body : {}
    if (typeof plaintext !== 'string') throw unexpected(client)
    if (given.flag('json')) return done(printJson(body))
    return done(
      `${plaintext}\n`,
      `key ${label(entryOf(entry, client))} replaced; the new one is shown this once, the old one is refused\n`,
    )
  },
}

const disable = switching(
  'disable',
  true,
  'refuse a key until it is enabled again',
  'Refuses every request with this key from now on, until it is enabled again.',
)
const enable = switching('enable', false, 'let a disabled key in again', 'Lets a key that was disabled in again.')

function switching(verb: string, disabled: boolean, summary: string, about: string): Command {
  return {
    words: ['keys', verb],
    summary,
    about,
    args: [KEY],
    options: COMMON,
    run: async (given, io) => setDisabled(await connect(given, io), given.arg('KEY'), disabled, given.flag('json')),
  }
}

async function setDisabled(client: AdminClient, wanted: string, disabled: boolean, isJson: boolean): Promise<Output> {
  const entry = resolve(await list(client, KEYS), wanted, KEYS)
  const word = disabled ? 'disabled' : 'enabled'
  const isSo = (entry.value.disabled === true) === disabled
  // Written all the same it would raise the revision and tell the audit of a change that was none.
  if (isSo) return done(isJson ? printJson(entry) : `key ${label(entry)} is ${word} already\n`)
  const { body, warnings } = await client.ask('PUT', `${KEYS.path}/${encodeURIComponent(entry.id)}`, { ...entry.value, disabled })
  return done(isJson ? printJson(body) : `key ${label(entry)} ${word}\n`, warningLines(warnings))
}

const removeKey: Command = {
  words: ['keys', 'delete'],
  summary: 'delete a key',
  about:
    'Deletes a key: requests with it are refused from now on. Records of what it used stay. It cannot be undone; to keep it, disable it.',
  args: [KEY],
  options: COMMON,
  run: async (given, io) => remove(await connect(given, io), KEYS, given.arg('KEY'), given.flag('json')),
}

export const keys: readonly Command[] = [create, listKeys, show, rotate, disable, enable, removeKey]

/** `sk-` and 256 random bits. */
export function newKey(): string {
  return `sk-${Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64url')}`
}

export function hashOf(plaintext: string): string {
  return new Bun.CryptoHasher('sha256').update(plaintext).digest('hex')
}

/** throws: UsageError unless it is a length or a time that lies ahead */
export function expiryOf(text: string, { now }: Pick<Io, 'now'>): string {
  const length = parseLength(text)
  const time = length === undefined ? parseTime(text) : now().getTime() + length
  if (time === undefined)
    throw new UsageError('--expires needs a length such as 90d, a day such as 2030-01-31, or a time with its offset')
  if (time <= now().getTime()) throw new UsageError('--expires needs a time that lies ahead')
  return new Date(time).toISOString()
}

export function member(name: string, value: string | number | undefined): Record<string, string | number> {
  return value === undefined ? {} : { [name]: value }
}
