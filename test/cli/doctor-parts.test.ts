/** The parts of the doctor that compute and do not look. */
import { describe, expect, test } from 'bun:test'
import { judgeDates } from '../../src/cli/doctor/certificates.ts'
import { exitOf, type Finding, findingsText, worst } from '../../src/cli/doctor/finding.ts'
import { type Evidence, identify, servedNames } from '../../src/cli/doctor/fingerprint.ts'
import { compareNames } from '../../src/cli/doctor/model-names.ts'

describe('what a server seems to be', () => {
  const list = (owned_by: string) => ({ object: 'list', data: [{ id: 'm', object: 'model', owned_by }] })
  test.each<[string, Partial<Evidence>, ReturnType<typeof identify>]>([
    ['vLLM', { models: list('vllm'), answers: { '/version': { version: '0.11.0' } } }, { name: 'vLLM', version: '0.11.0' }],
    ['vLLM behind a proxy that hides /version', { models: list('vllm') }, { name: 'vLLM', version: undefined }],
    [
      'SGLang',
      { models: list('sglang'), answers: { '/get_server_info': { model_path: 'org/m', version: '0.5.2' } } },
      { name: 'SGLang', version: '0.5.2' },
    ],
    [
      'SGLang that answers for Ollama',
      { models: list('sglang'), answers: { '/api/version': { version: '0.1' } } },
      { name: 'SGLang', version: undefined },
    ],
    [
      'Ollama',
      { models: list('library'), answers: { '/api/version': { version: '0.12.3' } } },
      { name: 'Ollama', version: '0.12.3' },
    ],
    [
      'llama.cpp',
      {
        headers: { server: 'llama.cpp' },
        models: list('llamacpp'),
        answers: { '/props': { default_generation_settings: {}, build_info: 'b6700' } },
      },
      { name: 'llama.cpp', version: 'b6700' },
    ],
    [
      'TGI',
      { models: list('org/m'), answers: { '/info': { model_id: 'org/m', max_concurrent_requests: 128, version: '3.3.6' } } },
      { name: 'TGI', version: '3.3.6' },
    ],
    [
      'LiteLLM by its header',
      { headers: { 'x-litellm-version': '1.80.0' }, models: list('openai') },
      { name: 'LiteLLM', version: '1.80.0' },
    ],
    ['LiteLLM by its health', { answers: { '/health/liveliness': "I'm alive!" } }, { name: 'LiteLLM', version: undefined }],
    ['another gateway', { headers: { server: 'AISIX/0.1.0' } }, { name: 'aisix', version: '0.1.0' }],
    ['nothing that is known', { headers: { server: 'nginx' }, models: { data: [] } }, undefined],
    [
      'a page of HTML everywhere',
      { answers: { '/version': '<html>', '/info': '<html>', '/props': '<html>', '/api/version': '<html>' } },
      undefined,
    ],
  ])('%s', (_name, evidence, wanted) => {
    expect(identify({ headers: {}, answers: {}, models: undefined, ...evidence })).toEqual(wanted)
  })

  test('a list of models is one of the shape of OpenAI, whatever else stands in it', () => {
    expect(servedNames({ data: [{ id: 'a' }, { id: 7 }, null, 'x', { name: 'b' }] })).toEqual(['a'])
    for (const body of [undefined, null, [], 'text', { data: {} }, { models: [] }]) expect(servedNames(body)).toBeUndefined()
  })
})

describe('names on either side', () => {
  const wanted = (modelName: string, alias = `alias of ${modelName}`) => ({ alias, modelName })

  test('what is not served and what is not used are told', () => {
    expect(compareNames([wanted('a'), wanted('b')], ['b', 'c'], { hasTags: false })).toEqual({
      missing: [wanted('a')],
      unused: ['c'],
    })
  })

  test('a pattern uses all that it matches, and misses nothing', () => {
    expect(compareNames([wanted('org/*')], ['org/a', 'org/b', 'other'], { hasTags: false })).toEqual({
      missing: [],
      unused: ['other'],
    })
    expect(compareNames([wanted('*')], ['a'], { hasTags: false })).toEqual({ missing: [], unused: [] })
    expect(compareNames([wanted('ab*ba')], ['aba'], { hasTags: false }).unused).toEqual(['aba'])
  })

  test('a name without a tag means the latest, where there are tags', () => {
    expect(compareNames([wanted('llama3')], ['llama3:latest'], { hasTags: true })).toEqual({ missing: [], unused: [] })
    expect(compareNames([wanted('llama3')], ['llama3:latest'], { hasTags: false }).missing).toEqual([wanted('llama3')])
    expect(compareNames([wanted('llama3')], ['llama3:8b'], { hasTags: true }).missing).toEqual([wanted('llama3')])
  })
})

test.each([
  ['2026-01-01', '2026-12-31', 'ok', 'is valid until 2026-12-31'],
  ['2026-01-01', '2026-06-20', 'warning', 'expires on 2026-06-20, in 19 days'],
  ['2026-01-01', '2026-05-31', 'error', 'expired on 2026-05-31'],
  ['2026-06-02', '2027-01-01', 'error', 'is not valid before 2026-06-02'],
] as const)('a certificate from %s to %s on 2026-06-01: %s', (from, to, severity, message) => {
  expect(judgeDates(Date.parse(from), Date.parse(to), Date.parse('2026-06-01'))).toEqual({ severity, message })
})

describe('findings', () => {
  const of = (...severities: Finding['severity'][]) => severities.map(severity => ({ check: 'c', severity, message: 'm' }))

  test.each([
    [of(), 'ok', 0],
    [of('ok', 'note'), 'note', 0],
    [of('warning', 'ok'), 'warning', 1],
    [of('warning', 'error', 'note'), 'error', 2],
  ] as const)('%j end with their worst', (findings, severity, exit) => {
    expect(worst(findings)).toBe(severity)
    expect(exitOf(findings)).toBe(exit)
  })

  test('are told one a line with what to do, control characters spelled out', () => {
    const findings: Finding[] = [{ check: 'server', subject: 'a\x1b[2J', severity: 'error', message: 'm\nn', advice: 'do' }]
    expect(findingsText(findings, { hasColour: false })).toBe(
      'error    server a\\u001b[2J: m\\u000an\n         → do\n0 ok, 0 notes, 0 warnings, 1 error\n',
    )
    expect(findingsText(findings, { hasColour: true })).toContain('\x1b[31merror')
  })
})
