import { version } from '../package.json'

/** Set by the build; a run from source has no commit. */
declare const AISIX_COMMIT: string | undefined

export const VERSION: string = version
export const COMMIT: string = typeof AISIX_COMMIT === 'string' ? AISIX_COMMIT : 'source'
