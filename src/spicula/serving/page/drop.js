// What is dropped or chosen: files, whole folders; and whether they are an exam or single images.
import { make } from "./dom.js";

const VIEW = /(^|[^a-z])[lr][-_ ]?(cc|mlo)([^a-z]|$)/i;
const ARCHIVE = /\.(zip|tar|tgz|gz)$/i;
const EXAM_FILES = 4, MOST_FILES = 256;

/** Whether a file is an archive, by its name. */
export const isArchive = (file) => ARCHIVE.test(file.name);

/** Whether files look like an exam: an archive, four files or more, or names of views. */
export function looksLikeExam(files) {
  return files.length >= EXAM_FILES || files.some((file) => isArchive(file) || VIEW.test(file.name));
}

/**
 * Return a place to drop files at, with a way to choose them.
 * @param {(files: File[]) => void} taken called with them
 */
export function dropZone(taken) {
  const input = make("input.unseen", { type: "file", multiple: true, id: "files", onchange: () => { take([...input.files]); input.value = ""; } });
  const note = make("p.reason", { role: "alert", hidden: true });
  const zone = make("div.drop", {},
    make("p.big", {}, "Drop images here"),
    make("p", {}, "The four views of a mammogram, a study's DICOM files, a folder or a zip of them; or single images: DICOM, PNG, JPEG, TIFF."),
    input, make("label.button.main", { for: "files" }, "Choose files"), note);
  const take = (files) => {
    const found = files.filter((file) => !file.name.startsWith("."));
    note.hidden = found.length > 0 && found.length <= MOST_FILES;
    note.textContent = found.length ? `These are ${found.length} files; ${MOST_FILES} can be sent at a time.` : "There are no files in it.";
    if (note.hidden) taken(found);
  };
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    take(await filesOf(event.dataTransfer));
  });
  return zone;
}

async function filesOf(transfer) {
  const plain = [...transfer.files];  // before the first wait: afterwards they are gone
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return plain;
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map(filesIn))).flat());
  }
}
