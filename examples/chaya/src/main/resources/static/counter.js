"use strict";

const said = document.getElementById("said");
const rows = document.getElementById("menu");

function row(item) {
  const line = document.createElement("tr");
  for (const text of [item.name, item.mon]) {
    line.appendChild(document.createElement("td")).textContent = text;
  }
  const input = document.createElement("input");
  Object.assign(input, { type: "number", min: 0, max: 20, value: 0, name: item.id });
  input.setAttribute("aria-label", `How many: ${item.name}`);
  line.appendChild(document.createElement("td")).appendChild(input);
  return line;
}

async function show() {
  const answer = await fetch("menu");
  rows.replaceChildren(...(await answer.json()).map(row));
}

async function order(event) {
  event.preventDefault();
  const lines = [...new FormData(event.target)]
    .map(([item, count]) => ({ item, count: Number(count) }))
    .filter((line) => line.count > 0);
  const answer = await fetch("orders", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(lines),
  });
  const taken = await answer.json();
  said.textContent = answer.ok ? `Order ${taken.number}: ${taken.mon} mon.` : taken.message;
}

document.getElementById("order").addEventListener("submit", order);
show();
