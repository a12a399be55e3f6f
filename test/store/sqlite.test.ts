import { afterAll } from 'bun:test'
import { scratch } from './scratch.ts'
import { storeContract } from './store-contract.ts'

const used: ReturnType<typeof scratch>[] = []
afterAll(async () => {
  for (const each of used) await each.clean()
})
storeContract('sqlite', clock => {
  const place = scratch()
  used.push(place)
  return place.open({ clock })
})
