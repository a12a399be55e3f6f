/**
 * The rows of the table in `accounting.test.ts`: every endpoint that reaches an upstream, on every road that its answers can
 * take. Who adds an endpoint adds its rows here, and has all cells.
 */
import { type Connection, chatAnswer, chatChunk, type Handler } from '../fake-upstream.ts'
import { UPSTREAM_MODEL } from '../gateway.ts'

/** Texts that may be told to exporters that want them, and to nobody else. */
export const PROMPT = 'the secret recipe of the house'
export const REPLY = 'a spoon of nothing'

export type Row = {
  name: string
  /** Name of the endpoint in records. */
  handler: string
  path: string
  /** Route template in metrics and records, where that is not the path. */
  template?: string
  /** `openai` unless it is told. */
  protocol?: 'anthropic' | 'ollama'
  /** Members of the body besides `model`. */
  body: Record<string, unknown>
  /** How members become a body; JSON unless it is told. */
  encode?(members: Record<string, unknown>): { body: string | Uint8Array; headers: Record<string, string> }
  /** What takes requests onto this road: members of the documents that differ from the usual ones. */
  model?: Record<string, unknown>
  providerKey?: Record<string, unknown>
  /**
   * How the answer goes out: held until it is whole, event by event as its caller asked for, or piece by piece without having been
   * asked. A whole answer is cut in the middle of its length; its caller cannot leave in the middle of it.
   */
  road: 'whole' | 'stream' | 'pieces'
  answer: Handler
  /**
   * What that answer tells of its tokens; `untold` where it tells nothing, so that the prompt is estimated by its bytes; undefined where
   * no tokens are used up.
   */
  tokens: { prompt: number; completion: number } | 'untold' | undefined
  /** The head of an answer and the first thing in it that its caller can use, which is REPLY; not of whole ones. */
  begin?(connection: Connection): Promise<void>
  /** Nothing is charged of an answer that was cut before it told its tokens. */
  isNeverEstimated?: true
  /** What an exporter that wants content is given; '' where nobody looks into the bodies. */
  content: { prompt: string; response: string }
}

const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
const TOKENS = { prompt: 5, completion: 7 }
const PROMPT_ONLY = { prompt: 5, completion: 0 }
const CONTENT = { prompt: PROMPT, response: REPLY }
const NO_CONTENT = { prompt: '', response: '' }

const json =
  (document: unknown): Handler =>
  (_request, connection) =>
    connection.json(200, document)

type Framing = { frame(event: object): string; type: string; end: string }

const EVENTS: Framing = {
  frame: event => `data: ${JSON.stringify(event)}\n\n`,
  type: 'text/event-stream',
  end: 'data: [DONE]\n\n',
}
const LINES: Framing = { frame: event => `${JSON.stringify(event)}\n`, type: 'application/x-ndjson', end: '' }

/** A stream whose first events are the beginning of what an upstream answers. */
function streaming(first: readonly object[], rest: readonly object[], { frame, type, end }: Framing = EVENTS) {
  const begin = async (connection: Connection) => {
    await connection.streamHead({ headers: { 'content-type': type } })
    await connection.chunk(first.map(frame).join(''))
  }
  const answer: Handler = async (_request, connection) => {
    await begin(connection)
    await connection.chunk(rest.map(frame).join('') + end)
    await connection.endChunks()
  }
  return { road: 'stream' as const, begin, answer, tokens: TOKENS, content: CONTENT }
}

const whole = (document: unknown) => ({ road: 'whole' as const, answer: json(document), tokens: TOKENS, content: CONTENT })
const embedded = (document: unknown) => ({ ...whole(document), tokens: PROMPT_ONLY, content: { prompt: PROMPT, response: '' } })

const CHAT = whole(chatAnswer(REPLY))
const CHAT_STREAM = streaming([chatChunk({ content: REPLY })], [chatChunk({}, { usage: USAGE })])

const textChunk = (text: string, more = {}) => ({
  id: 'cmpl-1',
  object: 'text_completion',
  choices: [{ index: 0, text }],
  ...more,
})

const EMBEDDINGS = embedded({
  object: 'list',
  model: 'm',
  data: [{ object: 'embedding', index: 0, embedding: [1] }],
  usage: { prompt_tokens: 5, total_tokens: 5 },
})

/** source: Anthropic API reference, "Messages": what a stream tells at its start of the tokens of its answer is not what it comes to */
const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: UPSTREAM_MODEL,
  content: [{ type: 'text', text: REPLY }],
  stop_reason: 'end_turn',
  usage: { input_tokens: 5, output_tokens: 7 },
}
const MESSAGE_STREAM = streaming(
  [
    {
      type: 'message_start',
      message: { ...MESSAGE, content: [], stop_reason: null, usage: { input_tokens: 5, output_tokens: 1 } },
    },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: REPLY } },
  ],
  [
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 7 } },
    { type: 'message_stop' },
  ],
  { ...EVENTS, end: '' },
)

/** source: OpenAI API reference, "Responses" */
const RESPONSE = {
  id: 'resp_1',
  object: 'response',
  status: 'completed',
  model: UPSTREAM_MODEL,
  error: null,
  output: [{ type: 'message', id: 'm', role: 'assistant', content: [{ type: 'output_text', text: REPLY, annotations: [] }] }],
  usage: { input_tokens: 5, output_tokens: 7, total_tokens: 12 },
}
const RESPONSE_STREAM = streaming(
  [
    { type: 'response.created', response: { ...RESPONSE, status: 'in_progress', output: [], usage: null } },
    { type: 'response.output_text.delta', item_id: 'm', output_index: 0, content_index: 0, delta: REPLY },
  ],
  [
    { type: 'response.output_text.done', item_id: 'm', output_index: 0, content_index: 0, text: REPLY },
    { type: 'response.completed', response: RESPONSE },
  ],
  { ...EVENTS, end: '' },
)

/** source: Ollama, docs/api.md */
const OLLAMA_LAST = { model: UPSTREAM_MODEL, done: true, done_reason: 'stop', prompt_eval_count: 5, eval_count: 7 }
const ollamaSaid = { chat: { message: { role: 'assistant', content: REPLY } }, generate: { response: REPLY } }

/** A body without anything that the gateway looks into, and an answer of which only the usage is read. */
const relayed = (name: string, path: string, body: Record<string, unknown>, answer: Record<string, unknown>): Row => ({
  ...{ name: path, handler: name, path, body },
  ...(path.startsWith('/v1/') ? {} : { template: `/v1${path}` }),
  ...{ road: 'whole', tokens: PROMPT_ONLY, content: NO_CONTENT },
  answer: json({ ...answer, usage: { prompt_tokens: 5, total_tokens: 5 } }),
})

const MESSAGES = [{ role: 'user', content: PROMPT }]
const STREAM = { stream: true }
const SPEAKS_MESSAGES = { providerKey: { adapter: 'anthropic' } }
const SPEAKS_RESPONSES = { providerKey: { response: { native_responses: true } } }
const SPEAKS_OLLAMA = { model: { provider: 'ollama' } }

const chat = { handler: 'chat', path: '/v1/chat/completions', body: { messages: MESSAGES } }
const completions = { handler: 'completions', path: '/v1/completions', body: { prompt: PROMPT } }
const messages = {
  handler: 'messages',
  path: '/v1/messages',
  protocol: 'anthropic' as const,
  body: { messages: MESSAGES, max_tokens: 9 },
}
const countTokens = { ...messages, handler: 'count_tokens', path: '/v1/messages/count_tokens', body: { messages: MESSAGES } }
const responses = { handler: 'responses', path: '/v1/responses', body: { input: PROMPT } }

/** An endpoint of Ollama's, which streams unless it is told not to, in front of a server of OpenAI's dialect and of one of its own. */
function ollama(kind: 'chat' | 'generate', body: Record<string, unknown>): Row[] {
  const endpoint = { handler: `ollama_${kind}`, path: `/api/${kind}`, protocol: 'ollama' as const, body }
  const said = ollamaSaid[kind]
  const streamed = streaming([{ model: UPSTREAM_MODEL, ...said, done: false }], [OLLAMA_LAST], LINES)
  const asWhole = { ...endpoint, body: { ...body, stream: false } }
  return [
    { name: `${endpoint.path}, translated`, ...asWhole, ...CHAT },
    { name: `${endpoint.path}, translated and streamed`, ...endpoint, ...CHAT_STREAM },
    { name: `${endpoint.path}, native`, ...asWhole, ...SPEAKS_OLLAMA, ...whole({ ...OLLAMA_LAST, ...said }) },
    { name: `${endpoint.path}, native and streamed`, ...endpoint, ...SPEAKS_OLLAMA, ...streamed },
  ]
}

export const ROWS: readonly Row[] = [
  { name: 'chat', ...chat, ...CHAT },
  { name: 'chat, streamed', ...chat, body: { ...chat.body, ...STREAM }, ...CHAT_STREAM },
  { name: 'chat, of a server of Messages', ...chat, ...SPEAKS_MESSAGES, ...whole(MESSAGE) },
  {
    ...{ name: 'chat, of a server of Messages and streamed', ...chat, body: { ...chat.body, ...STREAM } },
    ...SPEAKS_MESSAGES,
    ...MESSAGE_STREAM,
  },
  { name: 'completions', ...completions, ...whole({ ...textChunk(REPLY), model: 'm', usage: USAGE }) },
  {
    ...{ name: 'completions, streamed', ...completions, body: { ...completions.body, ...STREAM } },
    ...streaming([textChunk(REPLY)], [textChunk('', { usage: USAGE })]),
  },
  { name: 'embeddings', handler: 'embeddings', path: '/v1/embeddings', body: { input: PROMPT }, ...EMBEDDINGS },

  { name: 'messages, translated', ...messages, ...CHAT },
  { name: 'messages, translated and streamed', ...messages, body: { ...messages.body, ...STREAM }, ...CHAT_STREAM },
  { name: 'messages, native', ...messages, ...SPEAKS_MESSAGES, ...whole(MESSAGE) },
  {
    ...{ name: 'messages, native and streamed', ...messages, body: { ...messages.body, ...STREAM } },
    ...SPEAKS_MESSAGES,
    ...MESSAGE_STREAM,
  },
  // What is counted is the answer: nothing is used up.
  {
    ...{ name: 'count_tokens, of an engine', ...countTokens },
    ...{ ...whole({ count: 5, max_model_len: 9 }), tokens: undefined, content: { prompt: PROMPT, response: '' } },
  },
  {
    ...{ name: 'count_tokens, native', ...countTokens, ...SPEAKS_MESSAGES },
    ...{ ...whole({ input_tokens: 5 }), tokens: undefined, content: { prompt: PROMPT, response: '' } },
  },

  { name: 'responses, bridged', ...responses, ...CHAT },
  { name: 'responses, bridged and streamed', ...responses, body: { ...responses.body, ...STREAM }, ...CHAT_STREAM },
  { name: 'responses, native', ...responses, ...SPEAKS_RESPONSES, ...whole(RESPONSE) },
  {
    ...{ name: 'responses, native and streamed', ...responses, body: { ...responses.body, ...STREAM } },
    ...SPEAKS_RESPONSES,
    ...RESPONSE_STREAM,
  },

  ...ollama('chat', { messages: MESSAGES }),
  ...ollama('generate', { prompt: PROMPT }),
  ...[
    { path: '/api/embed', body: { input: PROMPT } },
    { path: '/api/embeddings', body: { prompt: PROMPT } },
  ].map((each): Row => ({ name: each.path, handler: 'ollama_embed', protocol: 'ollama', ...each, ...EMBEDDINGS })),

  relayed('rerank', '/v1/rerank', { query: PROMPT, documents: [PROMPT] }, { results: [{ index: 0, relevance_score: 1 }] }),
  ...['/v1', ''].flatMap(root => [
    relayed('score', `${root}/score`, { text_1: PROMPT, text_2: PROMPT }, { data: [{ index: 0, score: 1 }] }),
    relayed('classify', `${root}/classify`, { input: PROMPT }, { data: [{ index: 0, label: REPLY }] }),
    relayed('pooling', `${root}/pooling`, { input: PROMPT }, { data: [{ index: 0, data: [1] }] }),
    { ...relayed('tokenize', `${root}/tokenize`, { prompt: PROMPT }, { count: 2, tokens: [1, 2] }), tokens: undefined },
    { ...relayed('detokenize', `${root}/detokenize`, { tokens: [1, 2] }, { prompt: REPLY }), tokens: undefined },
  ]),
  {
    ...relayed('images', '/v1/images/generations', { prompt: PROMPT }, {}),
    answer: json({ created: 1, data: [{ b64_json: 'aGk=' }], usage: { input_tokens: 5, output_tokens: 7 } }),
    tokens: TOKENS,
  },
  {
    ...relayed('audio', '/v1/audio/speech', { input: PROMPT, voice: 'alloy' }, {}),
    road: 'pieces',
    ...speaking(),
    tokens: 'untold',
  },

  ...['/v1/audio/transcriptions', '/v1/audio/translations'].flatMap((path): Row[] => {
    const transcribing = { handler: 'audio', path, body: { prompt: PROMPT }, encode: formOf('file'), content: NO_CONTENT }
    const usage = { type: 'tokens', input_tokens: 5, output_tokens: 7 }
    const streamed = streaming(
      [{ type: 'transcript.text.delta', delta: REPLY }],
      [{ type: 'transcript.text.done', text: REPLY, usage }],
      { ...EVENTS, end: '' },
    )
    return [
      { name: path, ...transcribing, road: 'whole', answer: json({ text: REPLY, usage }), tokens: TOKENS },
      {
        ...{ name: `${path}, streamed`, ...transcribing, body: { ...transcribing.body, ...STREAM } },
        // A recording has no tokens that could be estimated: what is delivered of a stream that is cut is not told.
        ...{ ...streamed, isNeverEstimated: true, content: { prompt: '', response: REPLY } },
      },
    ]
  }),
  {
    ...relayed('images', '/v1/images/edits', { prompt: PROMPT }, {}),
    answer: json({ created: 1, data: [{ b64_json: 'aGk=' }], usage: { input_tokens: 5, output_tokens: 7 } }),
    ...{ tokens: TOKENS, encode: formOf('image') },
  },
]

/** Requests for what servers keep: they use up no tokens and are no requests to a model. */
export type JobRow = { method: 'GET' | 'POST' | 'DELETE'; path: string; template: string; body?: { name: string; value: string } }

export const JOB_ROWS: readonly JobRow[] = [
  ...['/v1/files', '/v1/batches', '/v1/fine_tuning/jobs'].flatMap((path): JobRow[] => [
    { method: 'GET', path, template: path },
    { method: 'GET', path: `${path}/x-1`, template: `${path}/:id` },
    ...(path === '/v1/files' ? [] : [{ method: 'POST' as const, path: `${path}/x-1/cancel`, template: `${path}/:id` }]),
  ]),
  { method: 'POST', path: '/v1/files', template: '/v1/files', body: { name: 'file', value: PROMPT } },
  { method: 'DELETE', path: '/v1/files/x-1', template: '/v1/files/:id' },
  { method: 'POST', path: '/v1/batches', template: '/v1/batches', body: { name: 'input_file_id', value: 'file-1' } },
  {
    ...{ method: 'POST', path: '/v1/fine_tuning/jobs', template: '/v1/fine_tuning/jobs' },
    body: { name: 'training_file', value: 'file-1' },
  },
  ...['events', 'checkpoints'].map(
    (action): JobRow => ({ method: 'GET', path: `/v1/fine_tuning/jobs/x-1/${action}`, template: '/v1/fine_tuning/jobs/:id' }),
  ),
  { method: 'GET', path: '/v1/files/x-1/content', template: '/v1/files/:id' },
]

/** Members as fields of a form, beside a file. */
function formOf(file: string): NonNullable<Row['encode']> {
  return members => {
    const parts = Object.entries(members).map(
      ([name, value]) => `--xyz\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
    )
    const upload = `--xyz\r\nContent-Disposition: form-data; name="${file}"; filename="a"\r\n\r\n${PROMPT}\r\n--xyz--\r\n`
    return { body: parts.join('') + upload, headers: { 'content-type': 'multipart/form-data; boundary=xyz' } }
  }
}

/** Bytes of sound, which no text is. */
function speaking() {
  const begin = async (connection: Connection) => {
    await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
    await connection.chunk(Uint8Array.of(1, 2, 255))
  }
  const answer: Handler = async (_request, connection) => {
    await begin(connection)
    await connection.chunk(Uint8Array.of(0, 128))
    await connection.endChunks()
  }
  return { begin, answer }
}
