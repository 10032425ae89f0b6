// Grey of 16 bits through window and level onto a canvas, with a heatmap over it: by WebGL 2 where a graphics processor
// does it, by tables where there is none.
//
// A renderer has: image(image), heat(heat or null), draw(boxes, look), free().
// image, heat: {width, height, pixels}, as png.js reads them.
// boxes: [{x, width, left, top, wide, high, overlay}], canvas pixels: a part of the canvas, and where the image lies.
// look: {low, high, invert, flip, opacity, color}; low is black, high is white; color is [red, green, blue], 0 to 1.
import { byTables } from "./tables.js";

/** What draws in software calls itself so: Chromium's and Firefox's, Mesa's, Windows'. */
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Return what draws on a canvas. */
export function rendererOf(canvas) {
  const gl = hasProcessor() ? canvas.getContext("webgl2", { antialias: false, alpha: false }) : null;
  return gl ? byProcessor(gl) : byTables(canvas.getContext("2d", { alpha: false }));
}

let known = null;

/** Whether WebGL 2 is there and a graphics processor behind it: a browser does not count its own software as a caveat. */
function hasProcessor() {
  if (known !== null) return known;
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  const more = gl?.getExtension("WEBGL_debug_renderer_info");
  known = gl !== null && !SOFTWARE.test(gl.getParameter(more ? more.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return known;
}

const CORNERS = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1), 0, 1); }`;

const PIXEL = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D image;
uniform sampler2D heat;
uniform vec4 place;   // left, top, width, height of the image, in pixels of the canvas
uniform vec4 look;    // low, high, invert, flip
uniform vec4 layer;   // color and opacity
uniform float canvas; // height
out vec4 result;

float at(ivec2 where, ivec2 last) { return float(texelFetch(image, clamp(where, ivec2(0), last), 0).r); }

float grey(vec2 uv) {
  ivec2 size = textureSize(image, 0), last = size - 1;
  vec2 where = uv * vec2(size) - 0.5, part = fract(where);
  ivec2 a = ivec2(floor(where)), b = a + 1;
  return mix(mix(at(a, last), at(ivec2(b.x, a.y), last), part.x),
             mix(at(ivec2(a.x, b.y), last), at(b, last), part.x), part.y);
}

void main() {
  vec2 uv = (vec2(gl_FragCoord.x, canvas - gl_FragCoord.y) - place.xy) / place.zw;
  bool inside = all(greaterThanEqual(uv, vec2(0))) && all(lessThanEqual(uv, vec2(1)));
  if (look.w > 0.5) uv.x = 1.0 - uv.x;
  float value = inside ? grey(uv) : 0.0;
  float shade = clamp((value - look.x) / (look.y - look.x), 0.0, 1.0);
  if (look.z > 0.5) shade = 1.0 - shade;
  float over = inside && value >= 0.5 ? texture(heat, uv).r * layer.a : 0.0;
  result = vec4(mix(vec3(shade), layer.rgb, over), 1);
}`;

function byProcessor(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, PIXEL]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const where = (name) => gl.getUniformLocation(program, name);
  const uniforms = { place: where("place"), look: where("look"), layer: where("layer"), canvas: where("canvas") };
  gl.uniform1i(where("image"), 0);
  gl.uniform1i(where("heat"), 1);
  const texture = (unit, filter) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const one of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, one, filter);
    for (const one of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, one, gl.CLAMP_TO_EDGE);
  };
  const heat = (one) => {
    const { width, height, pixels } = one ?? { width: 1, height: 1, pixels: new Uint8Array(1) };
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, width, height, 0, gl.RED, gl.UNSIGNED_BYTE, pixels);
  };
  texture(0, gl.NEAREST);
  texture(1, gl.LINEAR);
  heat(null);
  return {
    heat,
    image({ width, height, pixels }) {
      gl.activeTexture(gl.TEXTURE0);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_SHORT, pixels);
    },
    draw(boxes, { low, high, invert, flip, opacity, color }) {
      const { width, height } = gl.canvas;
      gl.viewport(0, 0, width, height);
      gl.enable(gl.SCISSOR_TEST);
      gl.uniform1f(uniforms.canvas, height);
      gl.uniform4f(uniforms.look, low, high, Number(invert), Number(flip));
      for (const box of boxes) {
        gl.scissor(box.x, 0, box.width, height);
        gl.uniform4f(uniforms.place, box.left, box.top, box.wide, box.high);
        gl.uniform4f(uniforms.layer, ...color, box.overlay ? opacity : 0);
        gl.drawArrays(gl.TRIANGLES, 0, 3);
      }
    },
    free: () => gl.getExtension("WEBGL_lose_context")?.loseContext(),
  };
}
