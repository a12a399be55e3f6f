/**
 * Generates the files that come from elsewhere: documents from schemas and from the list of metrics, the dashboard,
 * the catalog of prices from its package.
 * `bun tools/docs.ts` writes them; with `--check` nothing is written, and files that are out of date are named and end it
 * with 1.
 */
import { resolve } from 'node:path'
import { catalogSnapshot } from './docs/catalog.ts'
import { commandLineReference } from './docs/command-line.ts'
import { configurationReference } from './docs/configuration.ts'
import { dashboard } from './docs/dashboard.ts'
import { metricsReference } from './docs/metrics.ts'
import { configJsonSchema, resourcesJsonSchema } from './docs/schemas.ts'

/** One document a row: where it lies, and what makes its text. */
const DOCUMENTS: readonly { file: string; generate: () => Promise<string> }[] = [
  { file: 'docs/command-line.md', generate: commandLineReference },
  { file: 'docs/configuration.md', generate: configurationReference },
  { file: 'docs/metrics.md', generate: metricsReference },
  { file: 'docs/schema/config.schema.json', generate: configJsonSchema },
  { file: 'docs/schema/resources.schema.json', generate: resourcesJsonSchema },
  { file: 'docs/grafana/aisix.json', generate: dashboard },
  { file: 'src/pricing/catalog-snapshot.json', generate: catalogSnapshot },
]

const isCheck = process.argv.includes('--check')
const stale: string[] = []
for (const { file, generate } of DOCUMENTS) {
  const path = resolve(import.meta.dir, '..', file)
  const wanted = await generate()
  const found = await Bun.file(path)
    .text()
    .catch(() => undefined)
  if (found === wanted) continue
  stale.push(file)
  if (!isCheck) await Bun.write(path, wanted)
}
if (stale.length > 0) console.log(`${isCheck ? 'out of date (run `make docs`)' : 'written'}: ${stale.join(', ')}`)
if (isCheck && stale.length > 0) process.exit(1)
