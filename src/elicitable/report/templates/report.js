"use strict";
// Lists the test items behind a cell of the table of arms. Texts only ever become text nodes.
(() => {
  const source = document.getElementById("items-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const list = document.getElementById("items-list");
  const says = document.getElementById("items-says");
  const SHOWN = 25;
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = visible(text);
    if (className) made.className = className;
    return made;
  };
  // Characters that change the direction of a line or take no room are shown by their number.
  const visible = (text) =>
    text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, (c) =>
      "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const card = (item) => {
    const made = element("div", undefined, "item");
    const asked = element("div");
    const [prompt, target] = data.items[item] || ["", ""];
    asked.append(element("p", `Item ${item + 1}`, "small"), element("pre", prompt));
    asked.append(element("p", "Target", "small"), element("pre", target));
    const answers = element("div", undefined, "answers");
    data.arms.forEach((arm, nth) => {
      const hit = data.right[nth][item] === "1";
      const mark = element("span", hit ? "✓" : "✗", hit ? "hit" : "miss");
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", hit ? "right" : "wrong");
      answers.append(mark, element("span", arm), element("span", data.answers[nth][item] || "", "answer-text mono"));
    });
    made.append(asked, answers);
    return made;
  };
  const show = (won, lost) => {
    const found = [];
    for (let item = 0; item < data.right[0].length; item++)
      if (data.right[won][item] === "1" && data.right[lost][item] === "0") found.push(item);
    const rest = found.length > SHOWN ? `; the first ${SHOWN} are shown` : "";
    const names = `${data.arms[won]} got right and ${data.arms[lost]} did not`;
    says.textContent = `${found.length} items that ${names}${rest}.`;
    list.replaceChildren(...(data.items.length ? found.slice(0, SHOWN).map(card) : []));
  };
  for (const button of document.querySelectorAll("button[data-won]")) {
    button.disabled = button.textContent === "0"; // there is nothing to see
    button.addEventListener("click", () => show(Number(button.dataset.won), Number(button.dataset.lost)));
  }
})();

// Looks up what was decided at another margin. The table was made with the report: nothing is decided here.
(() => {
  const source = document.getElementById("margin-data");
  if (!source) return;
  const at = (name) => document.getElementById(`margin-${name}`);
  const data = JSON.parse(source.textContent);
  const rows = [...document.querySelectorAll("#decides .row")]; // in the order of data.arms
  const write = (name, text) => { if (at(name).textContent !== text) at(name).textContent = text; };
  // Points become a share by moving the decimal point, so that 2.3 is the 0.023 of the command line.
  const share = (points) => Number(/e/i.test(points) ? points / 100 : `${points}e-2`);
  // A difference in margins of the race, on its axis: straight between knots.
  const place = (difference) => {
    const after = data.knots.findIndex(([one]) => one >= difference);
    if (after <= 0) return after < 0 ? 100 : 0;
    const [[low, from], [high, to]] = data.knots.slice(after - 1, after + 1);
    return from + ((difference - low) / (high - low)) * (to - from);
  };
  const stretchAt = (margin) => data.stretches.findLast((one) => one.from <= margin);
  const show = (points) => {
    const margin = share(points);
    const found = margin > 0 && margin < 1 ? stretchAt(margin) : undefined;
    at("points").setAttribute("aria-invalid", String(!found));
    if (!found) return;
    const chosen = found.answer === null ? undefined : rows[found.answer];
    const said = Number((100 * margin).toPrecision(6));
    write("shown", said === 1 ? "1 point" : `${said} points`);
    write("label", found.label);
    at("label").className = `badge ${chosen ? chosen.dataset.group : "open"}`;
    write("answer", found.answer === null ? "" : data.arms[found.answer]);
    write("reason", found.reason.endsWith(".") ? found.reason : `${found.reason}.`);
    at("slide").setAttribute("aria-valuetext", `${at("shown").textContent}: ${found.label}`);
    rows.forEach((row, nth) => {
      row.classList.toggle("answer", row === chosen);
      row.dataset.standing = found.standings[nth];
      const words = row.querySelector(".standing");
      if (words.textContent) words.textContent = data.words[found.standings[nth]];
      const left = place(-margin / data.margin);
      const band = row.querySelector(".band");
      band.style.left = `${left}%`;
      band.style.width = `${100 - left}%`;
    });
  };
  const move = (points, ...inputs) => {
    for (const input of inputs) input.value = points;
    show(points);
  };
  at("slide").addEventListener("input", () => move(at("slide").value, at("points")));
  at("points").addEventListener("input", () => move(at("points").value, at("slide")));
  at("back").addEventListener("click", () => move(data.points, at("slide"), at("points")));
  at("controls").hidden = false;
  move(data.points, at("slide"), at("points"));
})();
