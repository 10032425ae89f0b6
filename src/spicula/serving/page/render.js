// Grey of 16 bits through window and level onto a canvas, with a heatmap over it: by WebGL 2, or slower without it.
//
// A renderer has: image(image), heat(heat or null), draw(boxes, look), free().
// image, heat: {width, height, pixels}, as png.js reads them.
// boxes: [{x, width, left, top, wide, high, overlay}], canvas pixels: a part of the canvas, and where the image lies.
// look: {low, high, invert, flip, opacity, color}; low is black, high is white; color is [red, green, blue], 0 to 1.

/** Return what draws on a canvas. */
export function rendererOf(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false });
  return gl ? fast(gl) : slow(canvas.getContext("2d", { alpha: false }));
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

function fast(gl) {
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

function slow(context) {
  let image = null, heat = null;
  return {
    image: (one) => { image = one; },
    heat: (one) => { heat = one; },
    draw: (boxes, look) => { for (const box of boxes) context.putImageData(drawn(image, heat, box, look, context.canvas.height), box.x, 0); },
    free() {},
  };
}

function drawn(image, heat, box, look, height) {
  const made = new ImageData(box.width, height), to = made.data, gain = 255 / (look.high - look.low);
  const reds = look.color.map((value) => 255 * value);
  const column = (x, width) => {
    const u = (x + box.x + 0.5 - box.left) / box.wide;
    return u < 0 || u >= 1 ? -1 : Math.floor((look.flip ? 1 - u : u) * width);
  };
  const columns = Int32Array.from({ length: box.width }, (_, x) => column(x, image.width));
  const heats = heat && Int32Array.from({ length: box.width }, (_, x) => column(x, heat.width));
  for (let y = 0, at = 0; y < height; y++) {
    const v = (y + 0.5 - box.top) / box.high, isIn = v >= 0 && v < 1;
    const row = Math.floor(v * image.height) * image.width, hot = heat ? Math.floor(v * heat.height) * heat.width : 0;
    for (let x = 0; x < box.width; x++, at += 4) {
      const isInside = isIn && columns[x] >= 0, value = isInside ? image.pixels[row + columns[x]] : 0;
      let shade = Math.min(255, Math.max(0, (value - look.low) * gain));
      if (look.invert) shade = 255 - shade;
      const over = heat && box.overlay && value > 0 ? (heat.pixels[hot + heats[x]] / 255) * look.opacity : 0;
      for (let band = 0; band < 3; band++) to[at + band] = shade + (reds[band] - shade) * over;
      to[at + 3] = 255;
    }
  }
  return made;
}
