import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { checkResources } from '../../src/resources-file/check.ts'
import { exportResources, type StoredEntry } from '../../src/resources-file/export.ts'
import { isSimpleYaml } from '../../src/resources-file/simple-yaml.ts'
import { readYaml } from '../../src/resources-file/yaml.ts'
import { apiKey, budget, group, hashOf, model, policy, providerKey } from '../store/documents.ts'

const PK: StoredEntry = { kind: 'provider_keys', id: 'pk', value: providerKey('vllm') }
const hidden = { revealSecrets: false }

function load(text: string, env: Record<string, string>) {
  const read = readYaml(new TextEncoder().encode(text))
  if ('problems' in read) throw new Error(read.problems.map(({ message }) => message).join())
  return checkResources(read.value, env)
}

test('collections come in the order of the contract, empty ones not at all, the name first, ids not', () => {
  const { text, problems, count } = exportResources(
    [
      { kind: 'budgets', id: 'b', value: budget('b', { scope: 'model', scope_ref: 'm' }) },
      {
        kind: 'rate_limit_policies',
        id: 'p',
        value: policy('p', { scope: 'api_key', scope_ref: 'k', window: 'day', max_requests: 1 }),
      },
      { kind: 'api_keys', id: 'k', value: apiKey('sk-1') },
      { kind: 'models', id: 'm', value: model('llama', { provider_key_id: 'pk' }) },
      PK,
    ],
    hidden,
  )
  expect(problems).toEqual([])
  expect(count).toBe(5)
  expect(text.match(/^\w+:/gm)).toEqual([
    '_format_version:',
    'provider_keys:',
    'models:',
    'api_keys:',
    'rate_limit_policies:',
    'budgets:',
  ])
  expect(text).toContain(
    '  - display_name: "llama"\n    provider: "vllm"\n    model_name: "org/model"\n    provider_key: "vllm"\n',
  )
  expect(text).toContain(`  - display_name: "apikey-${hashOf('sk-1').slice(0, 16)}"\n`)
  expect(text).toContain(`scope_ref: "apikey-${hashOf('sk-1').slice(0, 16)}"`)
  expect(text).not.toMatch(/^ +(- )?id:/m)
  expect(isSimpleYaml(text)).toBe(true)
})

test('a label is kept where it is the only one, and replaced where it is shared', () => {
  const keys = ['own', 'shared', 'shared'].map(
    (display_name, i): StoredEntry => ({ kind: 'api_keys', id: `k${i}`, value: apiKey(`sk-${i}`, { display_name }) }),
  )
  const { text, problems } = exportResources(keys, hidden)
  expect(problems).toEqual([])
  expect([...text.matchAll(/display_name: "([^"]+)"/g)].map(([, name]) => name)).toEqual([
    'own',
    `apikey-${hashOf('sk-1').slice(0, 16)}`,
    `apikey-${hashOf('sk-2').slice(0, 16)}`,
  ])
})

test('names that differ in nothing but punctuation get variables of their own', () => {
  const entries = ['a-b', 'a.b'].map(
    (name, i): StoredEntry => ({ kind: 'provider_keys', id: name, value: providerKey(name, { secret: `secret-${i}` }) }),
  )
  const { text, placeholders, problems } = exportResources(entries, hidden)
  expect(problems).toEqual([])
  expect(placeholders.map(({ variable }) => variable)).toEqual([
    'AISIXSECRET_PROVIDER_KEY_A_B_API_KEY',
    'AISIXSECRET_PROVIDER_KEY_A_B_API_KEY_2',
  ])
  expect(text).not.toContain('secret-')
})

test.each<[string, StoredEntry[]]>([
  ['a provider key that is gone', [{ kind: 'models', id: 'm', value: model('llama', { provider_key_id: 'gone' }) }]],
  ['a target that is gone', [PK, { kind: 'models', id: 'g', value: group('g', ['gone']) }]],
  ['an allowed model that is gone', [{ kind: 'api_keys', id: 'k', value: apiKey('sk-1', { allowed_models: ['gone'] }) }]],
  [
    'a key that a policy is for and that is gone',
    [
      {
        kind: 'rate_limit_policies',
        id: 'p',
        value: policy('p', { scope: 'api_key', scope_ref: 'gone', window: 'day', max_requests: 1 }),
      },
    ],
  ],
])('%s is told, and the file made all the same', (_what, entries) => {
  const { text, problems } = exportResources(entries, hidden)
  expect(problems).toHaveLength(1)
  expect(text).toStartWith('_format_version: "1"\n')
})

test('whatever is in a document comes back, and nothing secret stands in the file', () => {
  const odd = fc.oneof(
    fc.string({ unit: 'binary', minLength: 1 }),
    fc.constantFrom('${A}', '$$', '$', 'a: b', '- x', 'null', '\u0085', '\u2028', 'ä𝄞', '"', "'", '\\', '#', 'y'),
  )
  const printable = fc.string({ minLength: 24, maxLength: 30 }).filter(text => text.trim() === text)
  fc.assert(
    fc.property(
      odd,
      printable,
      odd,
      fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 }),
      (name, secret, alias, fields) => {
        const entries: StoredEntry[] = [
          {
            kind: 'provider_keys',
            id: 'pk',
            value: providerKey(name, { secret: `S${secret}`, request: { default_body_fields: fields } }),
          },
          { kind: 'models', id: 'm', value: model(alias, { provider_key_id: 'pk' }) },
        ]
        const { problems, text } = exportResources(entries, hidden)
        expect(problems).toEqual([])
        expect(text).not.toContain(JSON.stringify(`S${secret}`))
        const revealed = exportResources(entries, { revealSecrets: true })
        expect(revealed.problems).toEqual([])
        const { entries: loaded } = load(revealed.text, {})
        expect(loaded[0]?.value).toMatchObject({ display_name: name, secret: `S${secret}` })
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 200) },
  )
})
