/**
 * The reference of the admin API as one HTML page: no script, no font, no image, nothing that leaves the host. It is what an
 * operator on an air-gapped network reads, and it is made of the OpenAPI document alone.
 */
import { createHash } from 'node:crypto'
import type { OpenApiDocument, OpenApiResponse, Operation } from './openapi.ts'
import { isSchema, type JsonSchema } from './schema.ts'

/** The page and the policy that lets a browser load nothing but the page's own style. */
export type ReferencePage = { html: string; contentSecurityPolicy: string }

export function referencePage(document: OpenApiDocument): ReferencePage {
  const sections = document.tags.map(tag => ({ ...tag, operations: operationsOf(document, tag.name) }))
  const text = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${html(document.info.title)} ${html(document.info.version)}</title>
<style>${STYLE}</style>
</head>
<body>
<nav aria-label="Operations">
<p class="brand">${html(document.info.title)}<small>version ${html(document.info.version)}</small></p>
${sections.map(navigation).join('\n')}
<h2>Schemas</h2>
<ul>${Object.keys(document.components.schemas)
    .map(name => `<li><a href="#schema-${name}">${html(name)}</a></li>`)
    .join('')}</ul>
</nav>
<main>
<header>
<h1>${html(document.info.title)}</h1>
<p class="lead">${html(document.info.summary)}</p>
${paragraphs(document.info.description)}
${authentication(document)}
<p>The same as a machine reads it: <a href="/admin/openapi.json">/admin/openapi.json</a></p>
</header>
${sections.map(section).join('\n')}
<section id="schemas">
<h2>Schemas</h2>
${Object.entries(document.components.schemas)
  .map(([name, schema]) => schemaCard(document, name, schema))
  .join('\n')}
</section>
</main>
</body>
</html>
`
  const hash = createHash('sha256').update(STYLE).digest('base64')
  return {
    html: text,
    contentSecurityPolicy: `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  }

  function section({ name, description, operations }: Section): string {
    return `<section id="${anchor(name)}">
<h2>${html(name)}</h2>
<p class="lead">${inline(description)}</p>
${operations.map(each => operationCard(document, each)).join('\n')}
</section>`
  }
}

type Located = { method: string; path: string; operation: Operation }
type Section = { name: string; description: string; operations: Located[] }

function operationsOf(document: OpenApiDocument, tag: string): Located[] {
  return Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations)
      .filter(([, operation]) => operation.tags.includes(tag))
      .map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  )
}

function navigation({ name, operations }: Section): string {
  const items = operations.map(
    ({ method, path, operation }) =>
      `<li><a href="#${operation.operationId}"><span class="method ${method.toLowerCase()}">${method}</span><span>${html(path)}</span></a></li>`,
  )
  return `<h2><a href="#${anchor(name)}">${html(name)}</a></h2>\n<ul>${items.join('')}</ul>`
}

function authentication(document: OpenApiDocument): string {
  const rows = Object.entries(document.components.securitySchemes).map(([name, scheme]) => {
    const header = scheme.type === 'http' ? 'Authorization: Bearer KEY' : `${scheme.name}: KEY`
    return `<tr><td>${html(name)}</td><td><code>${html(header)}</code></td><td>${inline(scheme.description ?? '')}</td></tr>`
  })
  return `<table><thead><tr><th>Credential</th><th>Header</th><th>What it is</th></tr></thead><tbody>${rows.join('')}</tbody></table>`
}

function operationCard(document: OpenApiDocument, { method, path, operation }: Located): string {
  const parts = [
    `<h3><span class="method ${method.toLowerCase()}">${method}</span> <code>${html(path)}</code></h3>`,
    `<p class="summary">${inline(operation.summary)} ${badge(operation)}</p>`,
  ]
  if (operation.description) parts.push(paragraphs(operation.description))
  if (operation.parameters) {
    const rows = operation.parameters.map(
      each =>
        `<tr><td><code>${html(each.name)}</code>${each.required ? REQUIRED : ''}</td><td>${each.in}</td><td>${inline(each.description)}</td></tr>`,
    )
    parts.push(
      '<h4>Parameters</h4>',
      `<table><thead><tr><th>Name</th><th>In</th><th>Meaning</th></tr></thead><tbody>${rows.join('')}</tbody></table>`,
    )
  }
  const [, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? []
  // A call without a body has an example, too.
  const examples: unknown[] = body?.examples === undefined ? [undefined] : Object.values(body.examples).map(({ value }) => value)
  if (body) parts.push('<h4>Request body</h4>', fields(body.schema, document))
  for (const [index, example] of examples.entries()) {
    const title = examples.length > 1 ? `Example ${index + 1}` : 'Example'
    parts.push(`<h4>${title}</h4>`, `<pre><code>${html(curl(method, path, operation, example))}</code></pre>`)
  }
  const success = operation.responses['200']
  if (success) parts.push(answer(success))
  parts.push('<h4>Answers</h4>', answers(operation))
  return `<article id="${operation.operationId}">${parts.join('\n')}</article>`
}

function badge({ security }: Operation): string {
  if (security === undefined) return '<span class="badge">admin key</span>'
  return security.length === 0 ? '<span class="badge">no key</span>' : '<span class="badge">caller key</span>'
}

/** A call as an operator would paste it, with the key taken from the environment. */
function curl(method: string, path: string, { security, parameters = [] }: Operation, example: unknown): string {
  const target = path.replace('{id}', '$ID')
  const lines = [`curl -sS${method === 'GET' ? '' : ` -X ${method}`} "http://127.0.0.1:3001${target}"`]
  if (security === undefined) lines.push('-H "Authorization: Bearer $AISIX_ADMIN_KEY"')
  else if (security.length > 0) lines.push('-H "Authorization: Bearer $AISIX_API_KEY"')
  if (example !== undefined) {
    lines.push('-H "Content-Type: application/json"', `-d '${JSON.stringify(example, null, 2).replace(/'/g, `'\\''`)}'`)
  }
  const [optional] = parameters.filter(each => each.in === 'query')
  const note = optional ? `\n# with ?${optional.name}: ${optional.description}` : ''
  return lines.join(' \\\n  ') + note
}

function answer({ content = {} }: OpenApiResponse): string {
  const [, media] = Object.entries(content)[0] ?? []
  if (media?.example === undefined) return ''
  const text = typeof media.example === 'string' ? media.example : JSON.stringify(media.example, null, 2)
  return `<pre class="answer"><code>${html(text)}</code></pre>`
}

function answers({ responses }: Operation): string {
  const rows = Object.entries(responses).map(([status, { description, content = {}, headers = {} }]) => {
    const schemas = Object.values(content).map(({ schema }) => typeOf(schema))
    const told = Object.entries(headers).map(
      ([name, header]) => `<br>Header <code>${html(name)}</code>: ${inline(header.description)}`,
    )
    return `<tr><td><code>${status}</code></td><td>${inline(description)}${told.join('')}</td><td>${schemas.join(', ')}</td></tr>`
  })
  return `<table><thead><tr><th>Status</th><th>When</th><th>Body</th></tr></thead><tbody>${rows.join('')}</tbody></table>`
}

function schemaCard(document: OpenApiDocument, name: string, schema: JsonSchema): string {
  const forms = formsOf(schema)
  // The forms of a kind have cards of their own.
  const body =
    forms.length > 0 && forms.every(({ $ref }) => $ref !== undefined) ? `<p>${typeOf(schema)}</p>` : fields(schema, document)
  return `<article id="schema-${name}"><h3>${html(name)}</h3>${schema.description ? paragraphs(schema.description) : ''}${body}</article>`
}

/** The members of an object schema, nested ones below their holder; of several forms one after the other, each by its name. */
function fields(schema: JsonSchema, document: OpenApiDocument): string {
  const whole = resolve(document, schema)
  const forms = formsOf(whole)
  if (forms.length > 0) {
    const cards = forms.map(form => `<h5>${html(nameOf(form))}</h5>${fields(form, document)}`)
    return `<p>${forms.map(form => `<a href="#schema-${nameOf(form)}">${html(nameOf(form))}</a>`).join(' or ')}</p>${cards.join('')}`
  }
  const rows: string[] = []
  const addMembers = (object: JsonSchema, prefix: string) => {
    for (const [name, member] of Object.entries(object.properties ?? {})) {
      if (!isSchema(member)) continue
      const required = object.required?.includes(name) ? REQUIRED : ''
      rows.push(
        `<tr><td><code><span class="prefix">${html(prefix)}</span>${html(name)}</code>${required}</td><td>${typeOf(member)}</td><td>${meaning(member)}</td></tr>`,
      )
      addWithin(member, `${prefix}${name}`)
    }
  }
  const addWithin = (holder: JsonSchema, place: string) => {
    addMembers(holder, `${place}.`)
    if (isSchema(holder.items)) addWithin(holder.items, `${place}[]`)
    for (const form of formsOf(holder)) {
      rows.push(`<tr class="form"><td colspan="3"><code>${html(place)}</code> as ${html(nameOf(form))}</td></tr>`)
      addWithin(form, place)
    }
  }
  addMembers(whole, '')
  if (rows.length === 0) return `<p>${typeOf(whole)}</p>`
  return `<table class="fields"><thead><tr><th>Member</th><th>Type</th><th>Meaning</th></tr></thead><tbody>${rows.join('')}</tbody></table>`
}

/** The forms of a schema that has several with members, each with a name. */
function formsOf({ anyOf = [] }: JsonSchema): JsonSchema[] {
  return anyOf.filter(isSchema).filter(form => form.$ref !== undefined || form.title !== undefined)
}

const nameOf = ({ $ref, title = '' }: JsonSchema): string => ($ref === undefined ? title : nameOfReference($ref))

const REQUIRED = ' <span class="required">required</span>'

function meaning(schema: JsonSchema): string {
  const notes: string[] = []
  if (schema.writeOnly === true) notes.push('Never read back.')
  if (schema.default !== undefined) notes.push(`Default: \`${JSON.stringify(schema.default)}\`.`)
  const bounds = [
    schema.minimum === undefined ? '' : `at least ${schema.minimum}`,
    schema.maximum === undefined ? '' : `at most ${schema.maximum}`,
    schema.minLength === undefined ? '' : schema.minLength === 1 ? 'not empty' : `at least ${schema.minLength} characters`,
    schema.maxLength === undefined ? '' : `at most ${schema.maxLength} characters`,
    schema.minItems === undefined ? '' : schema.minItems === 1 ? 'not empty' : `at least ${schema.minItems} entries`,
    schema.maxItems === undefined ? '' : `at most ${schema.maxItems} entries`,
    schema.uniqueItems === true ? 'none twice' : '',
    schema.minProperties === undefined ? '' : `at least ${schema.minProperties} member${schema.minProperties === 1 ? '' : 's'}`,
  ].filter(bound => bound !== '')
  if (bounds.length > 0) notes.push(`${bounds.join(', ').replace(/^./, first => first.toUpperCase())}.`)
  const described = schema.description ? inline(schema.description) : ''
  return described + (notes.length > 0 ? ` <span class="note">${inline(notes.join(' '))}</span>` : '')
}

function typeOf(schema: JsonSchema): string {
  if (schema.$ref !== undefined) {
    const name = nameOfReference(schema.$ref)
    return `<a href="#schema-${name}">${html(name)}</a>`
  }
  if (schema.const !== undefined) return `<code>${html(JSON.stringify(schema.const))}</code>`
  if (schema.enum) return schema.enum.map(value => `<code>${html(JSON.stringify(value))}</code>`).join(' ')
  if (schema.title !== undefined) return html(schema.title)
  // Beside a type it does not say what a value is but which members go together.
  if (schema.anyOf && schema.type === undefined) return schema.anyOf.filter(isSchema).map(typeOf).join(' or ')
  if (schema.type === 'array') return `list of ${isSchema(schema.items) ? typeOf(schema.items) : 'any'}`
  if (schema.type === 'object' && isSchema(schema.additionalProperties)) return `map of ${typeOf(schema.additionalProperties)}`
  return html(schema.format ?? String(schema.type ?? 'any'))
}

function resolve(document: OpenApiDocument, schema: JsonSchema): JsonSchema {
  if (schema.$ref === undefined) return schema
  return document.components.schemas[nameOfReference(schema.$ref)] ?? schema
}

const nameOfReference = (reference: string): string => reference.slice(reference.lastIndexOf('/') + 1)

const anchor = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-')

const paragraphs = (text: string): string =>
  text
    .split('\n\n')
    .map(each => `<p>${inline(each)}</p>`)
    .join('\n')

/** Text with code between backticks. */
const inline = (text: string): string => html(text).replace(/`([^`]+)`/g, '<code>$1</code>')

const html = (text: string): string => text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)

const STYLE = `
:root {
  color-scheme: light dark;
  --ink: #1c2430; --quiet: #5a6675; --paper: #ffffff; --panel: #f5f7fa; --line: #dde3ea; --link: #0b5cad;
  --code: #eef1f5; --get: #0b6e4f; --post: #0b5cad; --put: #8a5300; --delete: #b3261e;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #dfe5ee; --quiet: #95a2b3; --paper: #12161c; --panel: #191f28; --line: #2b3440; --link: #7db9ff;
    --code: #212936; --get: #5fd3a4; --post: #7db9ff; --put: #f0b45c; --delete: #ff8f87;
  }
}
* { box-sizing: border-box }
html { scroll-behavior: smooth; scroll-padding-top: 1rem }
body { margin: 0; display: grid; grid-template-columns: 21rem minmax(0, 1fr); color: var(--ink); background: var(--paper);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1.25rem; background: var(--panel);
  border-right: 1px solid var(--line) }
nav .brand { margin: 0 0 1.25rem; font-weight: 650; font-size: 1.05rem }
nav .brand small { display: block; font-weight: 400; color: var(--quiet) }
nav h2 { margin: 1.25rem 0 .3rem; font-size: .72rem; letter-spacing: .07em; text-transform: uppercase; color: var(--quiet) }
nav h2 a { color: inherit }
nav ul { list-style: none; margin: 0; padding: 0 }
nav li a { display: flex; gap: .5rem; padding: .14rem 0; color: var(--ink); font-size: .82rem; overflow-wrap: anywhere }
main { padding: 2.5rem clamp(1rem, 4vw, 4rem) 6rem; max-width: 70rem; min-width: 0 }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; letter-spacing: -.01em }
main h2 { margin: 3.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.35rem }
h3 { margin: 0 0 .25rem; font-size: 1rem; overflow-wrap: anywhere }
h3 code { background: none; padding: 0; font-size: 1rem }
h5 { margin: 1rem 0 .3rem; font-size: .85rem }
h4 { margin: 1.4rem 0 .4rem; font-size: .78rem; letter-spacing: .05em; text-transform: uppercase; color: var(--quiet) }
.lead { margin: 0 0 1rem; color: var(--quiet) }
.summary { margin: 0 }
article { margin: 1.25rem 0; padding: 1.25rem 1.4rem; border: 1px solid var(--line); border-radius: 8px }
article:target { border-color: var(--link) }
.method { flex: none; min-width: 3.6em; font: 650 .72rem/1.9 var(--mono); color: var(--quiet) }
h3 .method { font-size: .8rem }
.get { color: var(--get) } .post { color: var(--post) } .put { color: var(--put) } .delete { color: var(--delete) }
.badge { margin-left: .4rem; padding: .05rem .5rem; border: 1px solid var(--line); border-radius: 1rem; font-size: .75rem;
  color: var(--quiet); white-space: nowrap }
.required { margin-left: .25rem; font-size: .75rem; color: var(--delete) }
.note, .prefix { color: var(--quiet) }
code, pre { font-family: var(--mono); font-size: .86em }
code { padding: .08em .32em; border-radius: 4px; background: var(--code); overflow-wrap: anywhere }
pre { margin: 0; padding: .9rem 1rem; overflow-x: auto; border-radius: 6px; background: var(--code); line-height: 1.5 }
pre code { padding: 0; background: none; font-size: .82rem; overflow-wrap: normal }
pre.answer { margin-top: .5rem; border-left: 3px solid var(--get) }
table { width: 100%; border-collapse: collapse; font-size: .88rem }
th, td { padding: .4rem .7rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--quiet) }
tbody tr:last-child td { border-bottom: 0 }
.form td { color: var(--quiet); font-size: .82rem }
.fields td:first-child { width: 30% } .fields td:nth-child(2) { width: 22% }
@media (max-width: 56rem) {
  body { display: block }
  nav { position: static; height: auto; max-height: 45vh; border-right: 0; border-bottom: 1px solid var(--line) }
}
@media print { nav { display: none } body { display: block } article { break-inside: avoid } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto } }
`
