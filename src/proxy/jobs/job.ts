/** What differs between the endpoints of files, batches and fine-tuning jobs. source: proxy-03 §11 */
export type Job = {
  method: 'GET' | 'POST' | 'DELETE'
  /** Whether the path names one of them. */
  hasId: boolean
  /** What is done with it, the last segment of the path. */
  action?: string
  /** Of a JSON body: the member that must be there, and the members that hold ids. */
  body?: { required: string; ids: readonly string[]; isModelForwarded: boolean }
  /** An answer may tell that a batch is over: what it used is then to be charged. */
  tellsBatch?: boolean
}
