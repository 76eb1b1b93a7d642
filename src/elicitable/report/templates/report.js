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
    button.disabled = false;
    button.addEventListener("click", () => show(Number(button.dataset.won), Number(button.dataset.lost)));
  }
})();
