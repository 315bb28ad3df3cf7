// Lanes of counts and events below a map; a line in them is the moment that the map shows.

class Strip {
  constructor(run, scales, onSeek) {
    this.run = run;
    this.box = element("div", "", "strip");
    if (PAGE.runs.length > 1) this.box.append(element("h2", run.title));
    this.lanes = run.lanes.map((lane) => this.makeLane(lane, scales, onSeek));
    if (run.silent.length) this.box.append(element("p", `Never in this run: ${run.silent.join(", ")}.`, "soft"));
  }

  makeLane(lane, scales, onSeek) {
    const row = element("div", "", "lane"), words = element("div"), list = element("ul", "", "series");
    words.append(element("h3", lane.unit ? `${lane.title}, ${lane.unit}` : lane.title), list);
    const values = lane.series.map((series) => {
      const item = element("li"), chip = element("span", "", "chip"), value = element("b");
      chip.style.background = series.color;
      const text = element("span");
      text.append(chip, series.name);
      item.append(text, value);
      list.append(item);
      return value;
    });
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${lane.title} over time`);
    const cell = element("div");
    cell.append(canvas);
    row.append(words, cell);
    this.box.append(row);
    this.seekable(canvas, onSeek);
    return { lane, canvas, values, most: scales.get(lane.title), still: document.createElement("canvas") };
  }

  seekable(canvas, onSeek) {
    const seek = (event) => {
      const box = canvas.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      onSeek(this.run.times[0] + share * (this.run.times.at(-1) - this.run.times[0]));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      seek(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  }

  lay() {
    const ratio = window.devicePixelRatio || 1;
    for (const one of this.lanes) {
      one.canvas.width = one.still.width = Math.max(1, Math.floor(one.canvas.clientWidth * ratio));
      one.canvas.height = one.still.height = Math.max(1, Math.floor(one.canvas.clientHeight * ratio));
      drawLane(one.still.getContext("2d"), one.lane, one.most, this.run.times, ratio);
    }
  }

  draw(frame) {
    const share = frame / Math.max(this.run.times.length - 1, 1), ratio = window.devicePixelRatio || 1;
    for (const one of this.lanes) {
      const pen = one.canvas.getContext("2d"), wide = Math.max(1, Math.round(ratio));
      pen.clearRect(0, 0, one.canvas.width, one.canvas.height);
      pen.drawImage(one.still, 0, 0);
      pen.fillStyle = css("--ink");
      pen.fillRect(Math.round(share * (one.canvas.width - wide)), 0, wide, one.canvas.height);
      one.lane.series.forEach((series, i) => { one.values[i].textContent = shortNumber(series.values[frame], one.lane.unit); });
    }
  }
}

const shortNumber = (v, unit) => (unit ? v.toLocaleString("en-US", { maximumFractionDigits: v < 10 ? 2 : 1 }) : count(v));

// The most that a lane shows in any of the runs, so that lanes side by side compare.
function scalesOf(runs) {
  const found = new Map();
  for (const { lanes } of runs) {
    for (const lane of lanes) {
      let most = found.get(lane.title) || 0;
      for (let k = 0; k < lane.series[0].values.length; k++) {
        const values = lane.series.map((series) => series.values[k]);
        most = Math.max(most, lane.form === "line" ? Math.max(...values) : values.reduce((a, b) => a + b, 0));
      }
      found.set(lane.title, most);
    }
  }
  return found;
}

function drawLane(pen, lane, most, times, ratio) {
  const { width, height } = pen.canvas, base = height - Math.round(ratio), top = Math.round(13 * ratio);
  const y = (v) => base - (v / (most || 1)) * (base - top), nr = times.length;
  pen.clearRect(0, 0, width, height);
  if (lane.form === "line") drawLines(pen, lane, y, nr, ratio);
  else drawStacked(pen, lane, y, nr, lane.form === "bars" ? Math.max(width / nr, 1.4 * ratio) : width / nr + 1);
  pen.fillStyle = css("--line");
  pen.fillRect(0, base, width, Math.round(ratio));
  pen.fillStyle = css("--soft");
  pen.font = `${Math.round(10.5 * ratio)}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  pen.fillText(`${lane.form === "bars" ? "most in a frame " : "most "}${shortNumber(most, lane.unit)}`, 0, 0);
}

function drawStacked(pen, lane, y, nr, wide) {
  const { width } = pen.canvas, step = (width - wide) / Math.max(nr - 1, 1);
  for (let k = 0; k < nr; k++) {
    let sum = 0;
    for (const series of lane.series) {
      const v = series.values[k];
      if (!v) continue;
      pen.fillStyle = series.color;
      pen.fillRect(k * step, y(sum + v), wide, y(sum) - y(sum + v));
      sum += v;
    }
  }
}

function drawLines(pen, lane, y, nr, ratio) {
  const step = pen.canvas.width / Math.max(nr - 1, 1);
  for (const series of lane.series) {
    pen.beginPath();
    series.values.forEach((v, k) => (k ? pen.lineTo(k * step, y(v)) : pen.moveTo(0, y(v))));
    pen.strokeStyle = series.color;
    pen.lineWidth = 1.6 * ratio;
    pen.stroke();
  }
}
