import { openMemoryStore } from '../../src/store/memory.ts'
import { storeContract } from './store-contract.ts'

storeContract('memory', clock => openMemoryStore({ clock }))
