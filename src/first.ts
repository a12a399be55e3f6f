/**
 * What has to be done before anything else is even loaded: imported first by `main.ts`, so that the first of the two starts
 * ends here and costs no more than the runtime's own, and so that a SIGHUP during the start, which would end a process that
 * has no handler, meets one.
 */
import { restartWith, wantedEnvironment } from './environment.ts'

process.umask(0o077)
const wanted = wantedEnvironment(process.env)

/** False where the process could not start itself anew and runs with the limits of the first start. */
export const isRestarted = wanted === undefined || restartWith(wanted, process.argv)

let hasHungUp = false
let takeHangUp = () => {
  hasHungUp = true
}
process.on('SIGHUP', () => takeHangUp())

/** Has every SIGHUP from now on, and one that came already, told to `handler`. */
export function handleHangUps(handler: () => void): void {
  takeHangUp = handler
  if (hasHungUp) handler()
  hasHungUp = false
}
