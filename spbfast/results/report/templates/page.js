"use strict";
/* Buttons that save a figure; without this script the page lacks nothing else. */
(() => {
  const root = getComputedStyle(document.documentElement);
  const value = (name) => root.getPropertyValue(name).trim();

  /* A copy of a figure that stands alone: the page's colours become plain ones. */
  const standalone = (svg) => {
    const box = svg.viewBox.baseVal;
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", box.width);
    copy.setAttribute("height", box.height);
    copy.style.background = value("--paper");
    const text = new XMLSerializer().serializeToString(copy);
    const ink = `<style>text{fill:${value("--ink")}}</style>`;
    return text.replace(/var\((--\w+)\)/g, (_, name) => value(name)).replace(/(<svg[^>]*>)/, `$1${ink}`);
  };

  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const saveSvg = (svg, name) => save(new Blob([standalone(svg)], { type: "image/svg+xml" }), `${name}.svg`);

  const savePng = (svg, name) => {
    const box = svg.viewBox.baseVal;
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [box.width * 3, box.height * 3];
      const context = canvas.getContext("2d");
      context.fillStyle = value("--paper");
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, `${name}.png`));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(svg))}`;
  };

  for (const panel of document.querySelectorAll(".panel")) {
    const svg = panel.querySelector("svg");
    const bar = document.createElement("span");
    bar.className = "save";
    for (const [label, act] of [["SVG", saveSvg], ["PNG", savePng]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-label", `save as ${label}: ${svg.getAttribute("aria-label")}`);
      button.addEventListener("click", () => act(svg, panel.dataset.name));
      bar.append(button);
    }
    panel.append(bar);
  }

  /* Paper has no way to open what is folded away. */
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
