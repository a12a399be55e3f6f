/** What may be given where no command is. */
import type { Option } from './command.ts'
import { CONFIG } from './config-path.ts'

export const START_OPTIONS: readonly Option[] = [CONFIG, { name: 'version', short: 'V', about: 'Print the version.' }]
