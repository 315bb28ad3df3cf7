// The map of one run: every superpageblock a tile of its pageblocks, on one canvas.

const CATEGORIES = ["empty", "clean", "tainted", "isolated"];
const LARGEST_CELL = 40;

const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};
const count = (n) => Math.round(n).toLocaleString("en-US");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const memory = (pages) => (pages >= 262144 ? `${(pages / 262144).toFixed(1)} GiB` : `${(pages / 256).toFixed(1)} MiB`);
const shareText = (level) => (level === 0 ? "nothing" : level === ALL_FREE ? "all" : `about ${Math.round((level / ALL_FREE) * 100)} %`);

// Place of every tile for a width, with the largest cells that fit the height; sizes in device pixels.
function arrange(zones, width, most, ratio) {
  const frame = Math.max(1, Math.round(1.5 * ratio)), gap = Math.max(2, Math.round(3 * ratio));
  const head = zones.length > 1 ? Math.round(20 * ratio) : 0;
  for (let cell = Math.round(LARGEST_CELL * ratio); ; cell--) {
    const places = [];
    let y = 0;
    for (const zone of zones) {
      const w = zone.columns * cell + 2 * frame, h = zone.rows * cell + 2 * frame;
      const across = Math.max(1, Math.floor((width + gap) / (w + gap)));
      y += head;
      for (let i = 0; i < zone.nrSpb; i++) {
        places.push({ x: (i % across) * (w + gap), y: y + Math.floor(i / across) * (h + gap), w, h, zone, index: i });
      }
      y += Math.ceil(zone.nrSpb / across) * (h + gap);
    }
    const fits = y <= most && places.every((p) => p.x + p.w <= width);
    if (fits || cell <= 1) return { places, height: y, cell, frame, head };
  }
}

class TileMap {
  constructor(frames, run, onPick) {
    this.frames = frames;
    this.run = run;
    this.box = element("div", "", "run");
    this.canvas = element("canvas", "", "map");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `memory of ${run.title}`);
    if (PAGE.runs.length > 1) this.box.append(element("h2", run.title));
    this.box.append(this.canvas);
    this.source = document.createElement("canvas");
    this.hover = this.picked = -1;
    this.firstPb = [];
    let pb = 0;
    for (const zone of run.zones) for (let i = 0; i < zone.nrSpb; i++, pb += zone.perSpb) this.firstPb.push(pb);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => onPick(this.spbAt(event)));
  }

  lay(most) {
    const ratio = window.devicePixelRatio || 1, width = Math.floor(this.canvas.clientWidth * ratio);
    this.plan = arrange(this.run.zones, width, most * ratio, ratio);
    this.canvas.width = width;
    this.canvas.height = this.plan.height;
    this.canvas.style.height = `${this.plan.height / ratio}px`;
    this.columns = Math.max(...this.run.zones.map((zone) => zone.columns));
    this.rows = Math.max(...this.run.zones.map((zone) => zone.rows));
    this.across = Math.ceil(Math.sqrt(this.plan.places.length));
    this.source.width = this.across * this.columns;
    this.source.height = Math.ceil(this.plan.places.length / this.across) * this.rows;
    this.image = this.source.getContext("2d").createImageData(this.source.width, this.source.height);
    this.cells = new Uint32Array(this.image.data.buffer);
  }

  category(spb, frame) {
    return this.frames.spbs.category[frame * this.frames.spbs.nr + spb];
  }

  // Draw a frame; counts of pageblocks by class, or null if the frame is not there yet.
  draw(frame, look, nrClasses) {
    const data = this.frames.now(frame);
    if (!data) return null;
    this.frame = frame;
    const counts = new Uint32Array(nrClasses);
    this.fill(data, look, frame, counts);
    this.source.getContext("2d").putImageData(this.image, 0, 0);
    this.paint(frame);
    return counts;
  }

  fill(data, look, frame, counts) {
    const stride = this.source.width;
    this.plan.places.forEach((place, spb) => {
      const tainted = this.category(spb, frame) === TAINTED ? 1 : 0;
      const colours = look.colours[tainted], classes = look.classes[tainted];
      const at = Math.floor(spb / this.across) * this.rows * stride + (spb % this.across) * this.columns;
      const { columns, perSpb } = place.zone, first = this.firstPb[spb];
      for (let i = 0, x = 0, row = at; i < perSpb; i++) {
        const both = data.what[first + i] | (data.room[first + i] << 8);
        this.cells[row + x] = colours[both];
        counts[classes[both]]++;
        if (++x === columns) { x = 0; row += stride; }
      }
    });
  }

  paint(frame) {
    const pen = this.canvas.getContext("2d"), { places, frame: edge, head } = this.plan;
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.imageSmoothingEnabled = false;
    const styles = [css("--line"), css("--taint"), css("--ink"), css("--soft")];
    places.forEach((place, spb) => {
      const { columns, rows } = place.zone;
      const sx = (spb % this.across) * this.columns, sy = Math.floor(spb / this.across) * this.rows;
      pen.drawImage(this.source, sx, sy, columns, rows,
        place.x + edge, place.y + edge, place.w - 2 * edge, place.h - 2 * edge);
      this.outline(pen, place, this.category(spb, frame), styles);
      if (head && place.index === 0) {
        pen.fillStyle = styles[3];
        pen.font = `${Math.round(head * 0.62)}px system-ui, sans-serif`;
        pen.fillText(place.zone.name, 0, place.y - head * 0.28);
      }
    });
    for (const spb of [this.hover, this.picked]) if (places[spb]) this.mark(pen, places[spb], styles[2]);
  }

  outline(pen, place, category, styles) {
    const edge = this.plan.frame;
    pen.lineWidth = edge;
    pen.strokeStyle = category === TAINTED ? styles[1] : styles[0];
    pen.setLineDash(category === 0 ? [2 * edge, 2 * edge] : []);
    pen.strokeRect(place.x + edge / 2, place.y + edge / 2, place.w - edge, place.h - edge);
    pen.setLineDash([]);
  }

  mark(pen, place, colour) {
    const wide = this.plan.frame * 2;
    pen.lineWidth = wide;
    pen.strokeStyle = colour;
    pen.strokeRect(place.x + wide / 2, place.y + wide / 2, place.w - wide, place.h - wide);
  }

  spbAt(event) {
    const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
    const x = (event.clientX - box.left) * ratio, y = (event.clientY - box.top) * ratio;
    return this.plan.places.findIndex((p) => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h);
  }

  point(event) {
    const spb = event ? this.spbAt(event) : -1;
    if (spb !== this.hover) {
      this.hover = spb;
      if (this.frame !== undefined) this.paint(this.frame);
    }
    showTip(spb < 0 ? "" : this.words(spb), event);
  }

  rows_of(spb) {
    const { spbs } = this.frames, at = this.frame * spbs.nr + spb, zone = this.plan.places[spb].zone;
    const value = (name) => (spbs[name] ? spbs[name][at] : -1); // a capture has fewer columns
    const rows = [["is", CATEGORIES[value("category")] || "on no list"]];
    const add = (label, name, text) => { if (value(name) >= 0) rows.push([label, text(value(name))]); };
    add("free", "free_pages", (v) => `${memory(v)} (${count(v)} pages)`);
    add("wholly free pageblocks", "free", (v) => `${count(v)} of ${zone.perSpb}`);
    add("pinned", "pinned_pages", (v) => `${count(v)} pages`);
    for (const type of ["movable", "unmovable", "reclaimable"]) add(`${type} by mark`, type, (v) => `${count(v)} pageblocks`);
    return rows;
  }

  name_of(spb) {
    const { zone, index } = this.plan.places[spb];
    const pfn = zone.firstPfn + index * zone.perSpb * 512;
    return `superpageblock ${index}${this.run.zones.length > 1 ? ` of ${zone.name}` : ""}, pfn 0x${pfn.toString(16)}`;
  }

  words(spb) {
    return [this.name_of(spb), ...this.rows_of(spb).map(([name, text]) => `${name}: ${text}`)].join("\n");
  }
}

function showTip(text, event) {
  const tip = document.getElementById("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const above = event.clientY + 18 + tip.offsetHeight > window.innerHeight;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${above ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18}px`;
}
