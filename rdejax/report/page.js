"use strict";

// Tables: a click on a heading sorts by its column, largest first for numbers, once more turns round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
      });
      body.append(...rows);
    });
  });
}

// Clips: a browser without H.264 shows a sentence instead of an empty box.
for (const video of document.querySelectorAll("video")) {
  const mark = (state) => { video.dataset.state = state; };
  if (video.error) mark("failed");
  else if (video.readyState >= 2) mark("ok");
  video.addEventListener("loadeddata", () => mark("ok"));
  video.addEventListener("error", () => mark("failed"));
}
