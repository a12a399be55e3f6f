/** `aisix provider-keys …`: addresses and credentials of model servers. */
import { readFileSync } from 'node:fs'
import { errorCode } from '../lib/transport-cause.ts'
import { CONNECTION, connect, JSON_OUTPUT, printJson, warningLines } from './admin-client.ts'
import type { Given } from './arguments.ts'
import { type Argument, type Command, CommandFailed, done, type Io, UsageError } from './command.ts'
import { entryOf, label, list, nameOf, PROVIDER_KEYS, remove, resolve, showEntry, showList, textOf } from './entries.ts'
import { withoutLineBreak } from './hash-key.ts'
import { member } from './keys.ts'

const KEY: Argument = { name: 'NAME', about: 'Name or id of the provider key; the first 8 characters of an id are enough.' }
const COMMON = [JSON_OUTPUT, ...CONNECTION]

/** What a server without authentication is sent. */
const NO_SECRET = 'not-used'

const create: Command = {
  words: ['provider-keys', 'create'],
  summary: 'tell the gateway of a model server',
  about: `Tells the gateway where a model server is and what it is to present there. The secret comes from a variable (--secret-env) or from
standard input, never from the command line, and cannot be read back.`,
  args: [{ name: 'NAME', about: 'What to call it.' }],
  options: [
    {
      name: 'api-base',
      value: 'URL',
      about: 'Endpoint root, with `/v1` where the server routes on it, such as `http://10.0.0.5:8000/v1`.',
    },
    {
      name: 'secret-env',
      value: 'VARIABLE',
      about: 'Environment variable that holds the secret; else it is read from standard input.',
    },
    { name: 'no-secret', about: 'The server asks for none; a placeholder is sent.' },
    { name: 'provider', value: 'LABEL', about: 'Label of the vendor or server, such as `vllm`.' },
    {
      name: 'adapter',
      value: 'NAME',
      complete: ['openai', 'anthropic'],
      about: 'Dialect that the server speaks: `openai`, which is meant where none is given, or `anthropic`.',
    },
    {
      name: 'upstream-ca-file',
      value: 'FILE',
      complete: 'file',
      about: 'PEM file of certificates to trust for this server besides the usual ones.',
    },
    ...COMMON,
  ],
  examples: [
    'aisix provider-keys create vllm-private --provider vllm --api-base http://10.0.0.5:8000/v1 --no-secret',
    'aisix provider-keys create openai --provider openai --secret-env OPENAI_API_KEY',
  ],
  async run(given, io) {
    const document = {
      display_name: given.arg('NAME'),
      provider: given.text('provider') ?? '',
      adapter: given.text('adapter') ?? 'openai',
      ...member('api_base', given.text('api-base')),
      ...tlsOf(given.text('upstream-ca-file')),
    }
    const secret = await readSecret(given, io)
    const client = await connect(given, io)
    const { body, warnings } = await client.ask('POST', PROVIDER_KEYS.path, { ...document, secret })
    return done(
      given.flag('json') ? printJson(body) : `provider key ${label(entryOf(body, client))} created\n`,
      warningLines(warnings),
    )
  },
}

async function readSecret(given: Given, io: Io): Promise<string> {
  const variable = given.text('secret-env')
  if (given.flag('no-secret')) {
    if (variable !== undefined) throw new UsageError('--no-secret and --secret-env exclude each other')
    return NO_SECRET
  }
  if (variable !== undefined) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(variable))
      throw new UsageError('--secret-env takes the name of a variable, never the secret itself')
    const secret = io.env[variable]
    if (!secret) throw new UsageError(`the variable ${variable} is unset or empty`)
    return secret
  }
  if (io.stdinIsTerminal) {
    throw new UsageError(
      'the secret comes from --secret-env or from standard input, where it is not shown: printf \'%s\' "$SECRET" | aisix …; or --no-secret',
    )
  }
  const secret = new TextDecoder().decode(withoutLineBreak(await io.stdin()))
  if (secret === '')
    throw new UsageError('there is no secret on standard input; --secret-env names a variable, --no-secret sends a placeholder')
  return secret
}

function tlsOf(caFile: string | undefined): { tls?: { ca_cert: string } } {
  if (caFile === undefined) return {}
  try {
    return { tls: { ca_cert: readFileSync(caFile, 'utf8') } }
  } catch (error) {
    throw new CommandFailed(`${caFile}: cannot be read (${errorCode(error) || 'unknown error'})`)
  }
}

const listProviderKeys: Command = {
  words: ['provider-keys', 'list'],
  summary: 'list all model servers',
  about: 'Lists all provider keys in the order of their creation. Secrets are not told.',
  options: COMMON,
  async run(given, io) {
    return showList(
      await list(await connect(given, io), PROVIDER_KEYS),
      [
        { title: 'NAME', value: nameOf, min: 12 },
        { title: 'PROVIDER', value: ({ value }) => textOf(value.provider), min: 8 },
        { title: 'ADAPTER', value: ({ value }) => textOf(value.adapter) },
        { title: 'API BASE', value: ({ value }) => textOf(value.api_base), min: 16 },
        { title: 'ID', value: ({ id }) => id, min: 9 },
      ],
      PROVIDER_KEYS,
      given.flag('json'),
      io,
    )
  },
}

const show: Command = {
  words: ['provider-keys', 'show'],
  summary: 'show all of one model server but its secret',
  about: 'Shows everything about one provider key but its secret.',
  args: [KEY],
  options: COMMON,
  run: async (given, io) =>
    showEntry(resolve(await list(await connect(given, io), PROVIDER_KEYS), given.arg('NAME'), PROVIDER_KEYS), given.flag('json')),
}

const removeProviderKey: Command = {
  words: ['provider-keys', 'delete'],
  summary: 'forget a model server',
  about: 'Deletes a provider key and its secret. Warns of models that still use it; they fail from then on.',
  args: [KEY],
  options: COMMON,
  run: async (given, io) => remove(await connect(given, io), PROVIDER_KEYS, given.arg('NAME'), given.flag('json')),
}

export const providerKeys: readonly Command[] = [listProviderKeys, show, create, removeProviderKey]
