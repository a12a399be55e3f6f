/**
 * Starts a worker of ours, from source and compiled. In the executable modules lie under the root of the bundle, and a
 * relative name is looked up there; every worker is an entry point of `tools/build.sh`.
 * in: the module's path below `src`, such as `ledger/worker.ts`
 */
export function startWorker(path: string): Worker {
  const isCompiled = import.meta.url.includes('$bunfs')
  return new Worker(isCompiled ? `./${path}` : new URL(`../${path}`, import.meta.url).href, { smol: true })
}
