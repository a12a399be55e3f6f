import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { parse } from 'yaml'
import { configSchema } from '../../src/config/json-schema.ts'
import { REGISTRY } from '../../src/resources/index.ts'
import { documentSchema, isSchema } from '../../src/resources/json-schema.ts'
import { resourcesSchema } from '../../src/resources-file/json-schema.ts'
import { COLLECTIONS } from '../../src/resources-file/names.ts'
import { misfits } from '../admin/json-schema.ts'

const schema = resourcesSchema()
const { $schema, title, ...plain } = schema
const wrong = (root: unknown) => misfits({}, plain, root)
const version = { _format_version: '1' }
const model = { display_name: 'a', provider: 'vllm', model_name: 'm' }

describe('the schema of a resources file', () => {
  test('takes the examples of every kind, under a name', () => {
    for (const kind of COLLECTIONS) {
      const forms = documentSchema(kind).anyOf?.filter(isSchema) ?? [documentSchema(kind)]
      const examples = forms.flatMap(({ examples = [] }) => examples)
      expect(examples.length).toBeGreaterThan(0)
      const named = examples.map((example, i) => ({
        ...Object(example),
        ...(REGISTRY[kind].unique === 'key_hash' && { display_name: `key ${i}` }),
      }))
      expect(wrong({ ...version, [kind]: named })).toEqual([])
    }
  })

  test.each([
    ['a name in place of an id', { models: [{ ...model, provider_key: 'x' }] }],
    [
      'variables in place of what has rules',
      { provider_keys: [{ display_name: 'a', adapter: '${ADAPTER}', secret: '${S}', api_base: '${BASE}' }] },
    ],
    ['the variable of a key', { api_keys: [{ display_name: 'a', key_env: 'KEY', allowed_models: [] }] }],
    ['a key hash that is none', { api_keys: [{ display_name: 'a', key_hash: 'plain', allowed_models: [] }] }],
    ['an empty collection', { models: null }],
  ])('takes %s', (_what, more) => {
    expect(wrong({ ...version, ...more })).toEqual([])
  })

  test.each([
    ['no version', { models: [] }],
    ['a version that is a number', { _format_version: 1 }],
    ['an unknown collection', { ...version, modles: [] }],
    ['an unknown member', { ...version, models: [{ ...model, provider_key: 'x', modle: 1 }] }],
    ['a key without a name', { ...version, api_keys: [{ key_env: 'KEY', allowed_models: [] }] }],
    ['a key with both', { ...version, api_keys: [{ display_name: 'a', key_env: 'KEY', key_hash: 'x', allowed_models: [] }] }],
    ['a model without a provider key', { ...version, models: [model] }],
    ['a value of the wrong type', { ...version, models: [{ ...model, provider_key: 'x', timeout: 'soon' }] }],
  ])('refuses %s', (_what, root) => {
    expect(wrong(root)).not.toEqual([])
  })
})

describe('the schema of config.yaml', () => {
  const { $schema: _, title: __, ...config } = configSchema()

  test('takes the shipped file, which names it', async () => {
    const text = await Bun.file(join(import.meta.dir, '../../config.yaml')).text()
    expect(misfits({}, config, parse(text))).toEqual([])
    const [, named = ''] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(text) ?? []
    expect(await Bun.file(join(import.meta.dir, '../..', named)).json()).toEqual(JSON.parse(JSON.stringify(configSchema())))
  })

  test.each([
    { proxi: {} },
    { proxy: { addr: 5 } },
    { proxy: { addr: '127.0.0.1:0' }, cache: { backend: 'redis' } },
    { bedrock_endpoint_url: 'https://x' },
  ])('refuses %j', root => {
    expect(misfits({}, config, root)).not.toEqual([])
  })
})
