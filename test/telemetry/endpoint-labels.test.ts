import { expect, test } from 'bun:test'
import { endpointLabels } from '../../src/telemetry/endpoint-labels.ts'

test.each([
  ['/v1/chat/completions', '/v1/chat/completions', 'openai', true],
  ['/v1/models', '/v1/models', 'openai', false],
  ['/v1/messages', '/v1/messages', 'anthropic', true],
  ['/v1/messages/count_tokens', '/v1/messages/count_tokens', 'anthropic', true],
  ['/v1/realtime', '/v1/realtime', 'realtime', true],
  ['/v1/files', '/v1/files', 'openai', false],
  ['/v1/files/file-1/content', '/v1/files/:id', 'openai', false],
  ['/v1/videos/v-1', '/v1/videos/:id', 'openai', true],
  ['/v1/fine_tuning/jobs/j-1/events', '/v1/fine_tuning/jobs/:id', 'openai', false],
  ['/v1/files/', 'other', 'openai', false],
  ['/v1/files/:id', '/v1/files/:id', 'openai', false],
  ['/livez', '/livez', 'openai', false],
  ['/v1/models/llama', 'other', 'openai', false],
  ['/etc/passwd', 'other', 'openai', false],
  ['other', 'other', 'openai', false],
] as const)('%s is labelled %s', (path, endpoint, inboundProtocol, isLlm) => {
  expect(endpointLabels(path)).toMatchObject({ endpoint, inboundProtocol, isLlm })
})

test('no two templates share a place', () => {
  const paths = ['/livez', '/v1/models', '/v1/chat/completions', '/v1/files', '/v1/files/1', '/v1/batches/1', '/x']
  const places = paths.map(path => endpointLabels(path).index)
  expect(new Set(places).size).toBe(paths.length)
})
