/** Whole numbers in as few bytes as they need, seven bits a byte, lowest first. source: LEB128, unsigned */
export class VarintWriter {
  private bytes = new Uint8Array(64)
  private length = 0

  add(value: number): void {
    if (this.length + 8 > this.bytes.length) {
      const larger = new Uint8Array(this.bytes.length * 2)
      larger.set(this.bytes)
      this.bytes = larger
    }
    let rest = value
    while (rest > 127) {
      this.bytes[this.length++] = (rest % 128) | 128
      rest = Math.floor(rest / 128)
    }
    this.bytes[this.length++] = rest
  }

  take(): Uint8Array {
    return this.bytes.slice(0, this.length)
  }
}

export class VarintReader {
  private at = 0
  constructor(private readonly bytes: Uint8Array) {}

  get isAtEnd(): boolean {
    return this.at >= this.bytes.length
  }

  next(): number {
    let value = 0
    for (let scale = 1; this.at < this.bytes.length; scale *= 128) {
      const byte = this.bytes[this.at++] ?? 0
      value += (byte & 127) * scale
      if (byte < 128) break
    }
    return value
  }
}
