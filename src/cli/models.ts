/** `aisix models …`: what callers ask for. */
import { STRATEGY_NAMES } from '../routing/names.ts'
import { CONNECTION, connect, JSON_OUTPUT, printJson, warningLines } from './admin-client.ts'
import type { Given } from './arguments.ts'
import { type Argument, type Command, done, UsageError } from './command.ts'
import {
  type Entry,
  entryOf,
  isRecord,
  label,
  list,
  MODELS,
  nameOf,
  PROVIDER_KEYS,
  remove,
  resolve,
  showEntry,
  showList,
  textOf,
} from './entries.ts'
import { member } from './keys.ts'
import { LIMIT_OPTIONS, limitsOf, shownLimits } from './limits.ts'

const MODEL: Argument = { name: 'MODEL', about: 'Alias or id of the model; the first 8 characters of an id are enough.' }
const COMMON = [JSON_OUTPUT, ...CONNECTION]

const create: Command = {
  words: ['models', 'create'],
  summary: 'put a model, or a group of models, behind an alias',
  about: `Puts an alias in front of what a server serves (--provider-key and --model-name), or in front of several models (--target).
Further members are written over the admin API.`,
  args: [{ name: 'ALIAS', about: 'What callers send in `model`. One `*` makes it a pattern: `vllm/*`.' }],
  options: [
    { name: 'provider-key', value: 'NAME', about: 'Name or id of the provider key that reaches the server.' },
    { name: 'model-name', value: 'NAME', about: 'What the server calls the model.' },
    { name: 'provider', value: 'LABEL', about: 'Label for logs, metrics and usage; else that of the provider key.' },
    { name: 'input-per-1k', value: 'USD', about: 'Price of 1,000 prompt tokens; needs --output-per-1k.' },
    { name: 'output-per-1k', value: 'USD', about: 'Price of 1,000 completion tokens; needs --input-per-1k.' },
    { name: 'retries', value: 'N', about: 'Further attempts after a failure that may pass.' },
    {
      name: 'target',
      value: 'ALIAS[=WEIGHT]',
      isList: true,
      about: 'Makes a group: a model that may answer; give it once for each.',
    },
    {
      name: 'strategy',
      value: 'NAME',
      complete: STRATEGY_NAMES,
      about: `Of a group: which target is tried first: ${STRATEGY_NAMES.join(', ')}.`,
    },
    { name: 'timeout', value: 'MS', about: 'Milliseconds for a whole answer that is not streamed; 0: no deadline.' },
    { name: 'stream-timeout', value: 'MS', about: 'Milliseconds of silence between chunks of a stream.' },
    ...LIMIT_OPTIONS,
    ...COMMON,
  ],
  examples: [
    'aisix models create llama-3-private --provider-key vllm-private --model-name meta-llama/Llama-3.1-8B-Instruct',
    'aisix models create llama-3 --target llama-3-a=70 --target llama-3-b=30 --strategy round_robin',
  ],
  async run(given, io) {
    const isGroup = given.list('target').length > 0
    const foreign = (isGroup ? OF_DIRECT : OF_GROUP).find(name => given.text(name) !== undefined)
    if (foreign !== undefined) {
      throw new UsageError(
        isGroup
          ? `--${foreign} belongs to a model of its own, not to a group (--target)`
          : `--${foreign} needs --target: only groups have it`,
      )
    }
    const document = isGroup ? groupOf(given) : directOf(given)
    const client = await connect(given, io)
    const wanted = given.text('provider-key')
    if (wanted !== undefined) {
      const providerKey = resolve(await list(client, PROVIDER_KEYS), wanted, PROVIDER_KEYS)
      const provider = given.text('provider') ?? textOf(providerKey.value.provider)
      if (provider === '') throw new UsageError(`provider key ${label(providerKey)} has no label: give one with --provider`)
      Object.assign(document, { provider, provider_key_id: providerKey.id })
    }
    const { body, warnings } = await client.ask('POST', MODELS.path, document)
    return done(given.flag('json') ? printJson(body) : `model ${label(entryOf(body, client))} created\n`, warningLines(warnings))
  },
}

const OF_DIRECT = ['provider-key', 'model-name', 'provider', 'input-per-1k', 'output-per-1k', 'retries'] as const
const OF_GROUP = ['strategy'] as const

function common(given: Given) {
  return {
    display_name: given.arg('ALIAS'),
    ...member('timeout', given.count('timeout')),
    ...member('stream_timeout', given.count('stream-timeout')),
    ...limitsOf(given),
  }
}

function directOf(given: Given): Record<string, unknown> {
  const modelName = given.text('model-name')
  if (given.text('provider-key') === undefined || modelName === undefined) {
    throw new UsageError('a model needs --provider-key and --model-name; a group of models needs --target')
  }
  const [input, output] = [given.amount('input-per-1k'), given.amount('output-per-1k')]
  if ((input === undefined) !== (output === undefined))
    throw new UsageError('--input-per-1k and --output-per-1k are given together')
  return {
    ...common(given),
    model_name: modelName,
    ...member('retries', given.count('retries')),
    ...(input === undefined ? {} : { cost: { input_per_1k: input, output_per_1k: output } }),
  }
}

function groupOf(given: Given): Record<string, unknown> {
  return {
    ...common(given),
    routing: { ...member('strategy', given.text('strategy')), targets: given.list('target').map(targetOf) },
  }
}

/** `alias=70`; aliases may hold an equals sign, weights are numbers. */
export function targetOf(text: string): { model: string; weight?: number } {
  const [, model = text, weight] = /^(.+)=(\d{1,9})$/s.exec(text) ?? []
  return weight === undefined ? { model } : { model, weight: Number(weight) }
}

const listModels: Command = {
  words: ['models', 'list'],
  summary: 'list all models',
  about: 'Lists all models and groups in the order of their creation, with what the gateway makes of them now.',
  options: COMMON,
  async run(given, io) {
    const client = await connect(given, io)
    const entries = await list(client, MODELS)
    if (given.flag('json')) return showList(entries, [], MODELS, true, io)
    const providerKeys = new Map((await list(client, PROVIDER_KEYS)).map(entry => [entry.id, nameOf(entry)]))
    const { body: rows } = await client.ask('GET', 'models/status')
    const states = new Map(
      (Array.isArray(rows) ? rows : []).flatMap(row => (isRecord(row) ? [[textOf(row.id), stateOf(row)] as const] : [])),
    )
    return showList(
      entries,
      [
        { title: 'ALIAS', value: nameOf, min: 12 },
        { title: 'STATE', value: ({ id }) => states.get(id) ?? '', min: 9 },
        { title: 'SERVED AS', value: servedAs, min: 12 },
        { title: 'PROVIDER KEY', value: ({ value }) => providerKeyOf(value, providerKeys), min: 12 },
        { title: 'LIMITS', value: ({ value }) => shownLimits(value.rate_limit), min: 8 },
        { title: 'ID', value: ({ id }) => id, min: 9 },
      ],
      MODELS,
      false,
      io,
    )
  },
}

function stateOf(row: Record<string, unknown>): string {
  const [status, reason] = [textOf(row.status), textOf(row.status_reason)]
  if (status === 'not_applicable') return 'group'
  return reason === '' ? status : `${status} (${reason})`
}

function servedAs({ value }: Entry): string {
  if (!isRecord(value.routing)) return textOf(value.model_name)
  const targets = Array.isArray(value.routing.targets) ? value.routing.targets : []
  const names = targets.map(target => (isRecord(target) ? textOf(target.model) : ''))
  return `${textOf(value.routing.strategy) || 'failover'}: ${names.join(', ')}`
}

function providerKeyOf(value: Entry['value'], names: ReadonlyMap<string, string>): string {
  const id = textOf(value.provider_key_id)
  return id === '' ? '' : (names.get(id) ?? `missing: ${id}`)
}

const show: Command = {
  words: ['models', 'show'],
  summary: 'show all of one model',
  about: 'Shows everything about one model or group.',
  args: [MODEL],
  options: COMMON,
  run: async (given, io) =>
    showEntry(resolve(await list(await connect(given, io), MODELS), given.arg('MODEL'), MODELS), given.flag('json')),
}

const removeModel: Command = {
  words: ['models', 'delete'],
  summary: 'delete a model',
  about: 'Deletes a model or group: requests for its alias are refused from now on. Warns of groups and keys that still name it.',
  args: [MODEL],
  options: COMMON,
  run: async (given, io) => remove(await connect(given, io), MODELS, given.arg('MODEL'), given.flag('json')),
}

export const models: readonly Command[] = [listModels, show, create, removeModel]
