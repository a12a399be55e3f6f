/** A second of silence, as WAV has it. Source: Multimedia Programming Interface 1.0, "Waveform Audio File Format" */
export function waveOfOneSecond(): Uint8Array<ArrayBuffer> {
  const samples = 16_000
  const head = Buffer.alloc(44)
  head.write('RIFF')
  head.writeUInt32LE(36 + samples, 4)
  head.write('WAVEfmt ', 8)
  for (const [at, value] of [
    [16, 16],
    [24, 8_000],
    [28, 16_000],
    [40, samples],
  ] as const)
    head.writeUInt32LE(value, at)
  for (const [at, value] of [
    [20, 1],
    [22, 1],
    [32, 2],
    [34, 16],
  ] as const)
    head.writeUInt16LE(value, at)
  head.write('data', 36)
  return new Uint8Array(Buffer.concat([head, Buffer.alloc(samples)]))
}
