// One superpageblock, large: its pageblocks, its numbers, and how it came to be so.

class Detail {
  constructor(map, close) {
    this.map = map;
    this.box = element("section", "", "detail");
    this.box.hidden = true;
    const head = element("div", "", "head"), shut = element("button", "close");
    this.title = element("h2");
    shut.type = "button";
    shut.addEventListener("click", close);
    head.append(this.title, shut);
    this.cells = element("canvas");
    this.history = element("canvas", "", "past");
    this.table = element("table");
    this.cell = element("div", "", "cell soft");
    const left = element("div"), right = element("div");
    left.append(this.cells, this.cell);
    right.append(this.table, element("div", "free pages over time; the band below is the category", "soft past"), this.history);
    const body = element("div", "", "body");
    body.append(left, right);
    this.box.append(head, body);
    this.cells.addEventListener("pointermove", (event) => this.tell(event));
    this.cells.addEventListener("pointerleave", () => this.tell(null));
    this.tell(null);
  }

  show(spb) {
    this.spb = spb;
    this.box.hidden = spb < 0;
  }

  draw(frame, look) {
    const data = this.map.frames.now(frame);
    if (this.box.hidden || !data) return;
    this.title.textContent = this.map.name_of(this.spb);
    this.table.replaceChildren(...this.map.rows_of(this.spb).map(([name, text]) => {
      const row = element("tr");
      row.append(element("td", name), element("td", text));
      return row;
    }));
    this.drawCells(data, frame, look);
    this.drawHistory(frame);
  }

  drawCells(data, frame, look) {
    const { zone } = this.map.plan.places[this.spb], first = this.map.firstPb[this.spb];
    const ratio = window.devicePixelRatio || 1, width = Math.floor(this.cells.clientWidth * ratio);
    const cell = Math.max(2, Math.min(Math.floor(width / zone.columns), Math.round(34 * ratio))), gap = cell > 6 ? Math.max(1, Math.round(ratio)) : 0;
    this.cells.width = width;
    this.cells.height = cell * zone.rows;
    this.cells.style.height = `${this.cells.height / ratio}px`;
    this.grid = { cell, columns: zone.columns, perSpb: zone.perSpb, data, first, zone };
    const pen = this.cells.getContext("2d"), colours = look.colours[this.map.category(this.spb, frame) === TAINTED ? 1 : 0];
    for (let i = 0; i < zone.perSpb; i++) {
      const colour = colours[data.what[first + i] | (data.room[first + i] << 8)];
      pen.fillStyle = `rgba(${colour & 255},${(colour >> 8) & 255},${(colour >> 16) & 255},${(colour >>> 24) / 255})`;
      pen.fillRect((i % zone.columns) * cell, Math.floor(i / zone.columns) * cell, cell - gap, cell - gap);
    }
  }

  drawHistory(frame) {
    const { spbs, nr } = this.map.frames, ratio = window.devicePixelRatio || 1;
    const width = (this.history.width = Math.floor(this.history.clientWidth * ratio));
    const height = (this.history.height = Math.round(84 * ratio)), band = Math.round(8 * ratio);
    this.history.style.height = "84px";
    const pen = this.history.getContext("2d"), most = this.map.plan.places[this.spb].zone.perSpb * 512;
    const tones = [css("--line"), "#4a9fd8", css("--taint"), "#e8b000"], step = width / Math.max(nr, 1);
    for (let k = 0; k < nr; k++) {
      const at = k * spbs.nr + this.spb, tall = (Math.max(spbs.free_pages[at], 0) / most) * (height - band - 4);
      pen.fillStyle = css("--soft");
      pen.fillRect(k * step, height - band - 3 - tall, step + 0.5, tall);
      pen.fillStyle = tones[spbs.category[at]] || css("--line");
      pen.fillRect(k * step, height - band, step + 0.5, band);
    }
    pen.fillStyle = css("--ink");
    pen.fillRect(Math.min(frame * step, width - 2 * ratio), 0, Math.max(1, ratio), height);
  }

  tell(event) {
    const grid = this.grid, box = this.cells.getBoundingClientRect();
    const ratio = event && grid ? this.cells.width / box.width : 0;
    const x = ratio ? Math.floor(((event.clientX - box.left) * ratio) / grid.cell) : -1;
    const i = ratio ? Math.floor(((event.clientY - box.top) * ratio) / grid.cell) * grid.columns + x : -1;
    const known = x >= 0 && x < (grid ? grid.columns : 0) && i < grid.perSpb;
    this.cell.textContent = known ? this.aboutCell(i) : "Point at a pageblock for what is in it.";
  }

  aboutCell(i) {
    const { data, first, zone } = this.grid, what = data.what[first + i], room = data.room[first + i];
    const place = this.map.plan.places[this.spb];
    const pfn = zone.firstPfn + (place.index * zone.perSpb + i) * 512;
    if (what >> 5 === 7) return `pageblock ${i}: no memory`;
    const names = ["unmovable", "movable", "reclaimable"].filter((_, t) => (room >> (4 + t)) & 1);
    const known = this.map.run.views.includes("label");
    return `pageblock ${i}, pfn 0x${pfn.toString(16)}: ${kindName(this.map.run, kind(what))}, ${shareText(room & 15)} free` +
      (known ? `; label ${PAGE.labels[Math.min(what >> 5, PAGE.labels.length - 1)].name}; marks ${names.join(", ") || "none"}` : "") +
      (what & PINNED ? "; holds pinned pages" : "");
  }
}

const kindName = (run, k) => run.kindNames[PAGE.kinds[k].name] || PAGE.kinds[k].name;
