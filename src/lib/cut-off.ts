/**
 * Breaks an answer off, so that its reader sees that it was cut. Without a reason: the runtime would print one on stderr, with
 * source and stack, where the head is not out yet; the log has it.
 */
export function cutOff(controller: ReadableStreamDefaultController<Uint8Array>): void {
  controller.error()
}
