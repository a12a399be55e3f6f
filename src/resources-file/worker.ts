/** The thread that reads and checks a resources file, and hands its entries over in slices: no request waits for a large one. */
import type { FileEntry } from './check.ts'
import { loadResources } from './load.ts'
import type { FromLoader, ToLoader } from './messages.ts'
import { PROBLEMS_SHOWN_MAX } from './problem.ts'

declare const self: {
  onmessage: (event: MessageEvent<ToLoader>) => void
  postMessage(message: FromLoader): void
}

/** Entries of a slice: what the event loop takes over in a few milliseconds. */
const SLICE = 250

let entries: FileEntry[] = []
let at = 0

self.onmessage = ({ data }) => {
  if (data.ask === 'load') self.postMessage(load(data.path, data.env))
  else {
    const slice = entries.slice(at, at + SLICE)
    at += slice.length
    self.postMessage({ tell: 'slice', entries: slice.length === 0 ? undefined : JSON.stringify(slice) })
  }
}

function load(path: string, env: Parameters<typeof loadResources>[1]): FromLoader {
  const { entries: loaded, problems, warnings, hash } = loadResources(path, env)
  if (problems.length > 0 || hash === undefined) {
    return { tell: 'refused', problems: problems.slice(0, PROBLEMS_SHOWN_MAX), count: problems.length, hash }
  }
  entries = loaded
  at = 0
  return { tell: 'loaded', hash, warnings }
}
