// The frames of a run: unpacked chunk by chunk when they are wanted, the last few kept.

const CHUNKS_KEPT = 6;

async function unpack(text) {
  const packed = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function addUp(bytes, first, length, nr) {
  for (let i = first + nr; i < first + length; i++) bytes[i] ^= bytes[i - nr];
}

class Frames {
  constructor(number, run) {
    this.number = number;
    this.run = run;
    this.nr = run.times.length;
    this.nrPb = run.zones.reduce((sum, zone) => sum + zone.nrSpb * zone.perSpb, 0);
    this.kept = new Map();
    this.coming = new Map();
  }

  // What and room of every pageblock, or null if they are not unpacked yet.
  now(frame) {
    const index = Math.floor(frame / PAGE.chunkFrames);
    const bytes = this.kept.get(index);
    if (!bytes) return null;
    this.kept.delete(index);
    this.kept.set(index, bytes);
    const half = bytes.length / 2, at = (frame % PAGE.chunkFrames) * this.nrPb;
    return { what: bytes.subarray(at, at + this.nrPb), room: bytes.subarray(half + at, half + at + this.nrPb) };
  }

  // Have a frame and those that follow it ready.
  async want(frame) {
    const index = Math.floor(frame / PAGE.chunkFrames);
    await this.load(index);
    if ((index + 1) * PAGE.chunkFrames < this.nr) this.load(index + 1);
  }

  load(index) {
    if (this.kept.has(index)) return Promise.resolve();
    if (!this.coming.has(index)) this.coming.set(index, this.fetch(index).finally(() => this.coming.delete(index)));
    return this.coming.get(index);
  }

  async fetch(index) {
    const bytes = await unpack(document.getElementById(`chunk-${this.number}-${index}`).textContent);
    const half = bytes.length / 2;
    addUp(bytes, 0, half, this.nrPb);
    addUp(bytes, half, half, this.nrPb);
    this.kept.set(index, bytes);
    while (this.kept.size > CHUNKS_KEPT) this.kept.delete(this.kept.keys().next().value);
  }

  // Numbers of superpageblocks over time, by column: Int32Array [frame * superpageblocks + superpageblock].
  async readSpbs() {
    const bytes = await unpack(this.run.spbs.data);
    const all = new Int32Array(bytes.buffer, 0, bytes.length / 4);
    const nrSpb = this.run.zones.reduce((sum, zone) => sum + zone.nrSpb, 0);
    const length = this.nr * nrSpb;
    this.spbs = { nr: nrSpb };
    this.run.spbs.names.forEach((name, i) => {
      const column = all.subarray(i * length, (i + 1) * length);
      for (let k = nrSpb; k < length; k++) column[k] += column[k - nrSpb];
      this.spbs[name] = column;
    });
  }
}
