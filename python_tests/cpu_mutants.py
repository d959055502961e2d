"""Wrong formulas of the CPU kernels. Each must fail the tests of its operator (test_cpu_mutations.py)."""

# operator -> file -> (text that stands there once, what it becomes)
MUTANTS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "soft_relu": {
        "soft_relu/math.h": [
            ("p.sharpness_log2), log1p =", "p.sharpness_log2 + p.u0), log1p ="),
            ("- p.t0)", "+ p.t0)"),
            ("log1p * p.height + (", "log1p * p.height - ("),
            ("e * p.slope_ratio + 1", "e * p.slope_ratio - 1"),
            ("e + p.slope_ratio", "e - p.slope_ratio"),
            ("return v >= 0 ?", "return v < 0 ?"),
            ("(e + 1) * numerator", "(e - 1) * numerator"),
            ("e * p.curvature * reciprocal}", "e * p.height * reciprocal}"),
            ("height(Real(other / k))", "height(Real(1 / k))"),
            ("85 : 705", "850 : 7050"),
        ],
        "soft_relu/cpu.cpp": [
            ("terms.slope + terms.log_slope", "terms.slope - terms.log_slope"),
        ],
        "soft_relu/cpu.h": [
            ("numerators.log() - log1p_total", "numerators.log() + log1p_total"),
            ("log_slope -= log1ps[i]", "log_slope += log1ps[i]"),
            ("factors++ == safe_factors", "factors++ == 1000"),
            ("for (T& e : elements) e = infinity<T>();", "for (T& e : elements) e = T{};"),
        ],
        "common/elementary.h": [
            ("0x7fff + ((u >> 16) & 1)", "0x7fff"),
            ("0xfff + ((magnitude >> 13) & 1)", "0xfff"),
            ("magnitude < 0x38800000 ? subnormal", "magnitude < 0x38800000 ? 0u"),
            ("+ x * 0;", ";"),
        ],
    },
    "fourier_features": {
        "fourier_features/math.h": [
            ("- n * C::part3", ""),
            ("part3 = 0x1.5110b4p-22f", "part3 = 0x1.51p-22f"),
            ("part2 = 0x1.0b4611a6p-34", "part2 = 0x1.0b4611a7p-34"),
            ("(Bits(0) - (n & 1))", "Bits(0)"),
            ("^ (n << to_sign", "^ ((n + 1) << to_sign"),
            ("^ ((n + 1) << to_sign", "^ (n << to_sign"),
            ("reach = 0x1p15f", "reach = 0x1p25f"),
            ("reach = 0x1p20;", "reach = 0x1p60;"),
            ("- C::mantissa_bits + 62", "- C::mantissa_bits + 61"),
            ("word[i] << shift | word[i + 1] >> (64 - shift)", "word[i] << shift"),
            ("Bits(turns >> 62) + (fraction < 0)", "Bits(turns >> 62)"),
            ("negative ? Bits(0) - n : n", "n"),
            ("negative ? -r : r", "r"),
            (": phase * 0,", ": r,"),
        ],
        "fourier_features/cpu.cpp": [
            ("if (!all_within_reach) mend_beyond_reach", "if (false) mend_beyond_reach"),
            ("most += largest[d] * (x[d] < 0 ? -x[d] : x[d])", "most += largest[d] * x[d]"),
            ("most = maximum(size, most)", "most = size"),
            ("if (pair == 0) {", "if (true) {"),
            ("std::copy_n(more_cosines, n, cosines)", "std::copy_n(more_cosines, 1, cosines)"),
            ("for (int i = n; i < count; ++i) of_phases[i] = 0;", ""),
            ("sums[2 * pair + 1] += second;", "sums[2 * pair + 1] = second;"),
            ("sums[d] = load(grad[d])", "sums[d] = 0"),
        ],
    },
    "soft_relu_inverse": {
        "soft_relu/inverse.h": [
            ("(s >= p.s_least) & (w < p.height) ? exponential", "false ? exponential"),
            ("z -= inverse_step<true>(z, w, p).change;", ""),
            ("if constexpr (sizeof(Real) == 8) z -=", "if constexpr (false) z -="),
            ("= kRough ? half * half + half : half;", "= 0;"),
            ("Real(kLog2 * kLog2 / 2)", "Real(0)"),
            ("- log_growth * log_growth * Real(0.5)", ""),
            ("z >= 0 ? last.change : -last.change", "last.change"),
            ("w == w_any ?", "true ?"),
            ("(v >= 0 ? v : v * p.far_left)", "v"),
            ("* p.curvature) * reciprocal", "* p.curvature)"),
            ("direction = -1", "direction = 1"),
            ("return {x + p.u0,", "return {x - p.u0,"),
        ],
    },
    "scores": {
        "staircase/cpu.cpp": [
            ("curvature[i] / derivative[i]) / derivative[i]", "curvature[i]) / derivative[i]"),
        ],
        "staircase/backward.h": [
            ("curvature[i] += step.weight", "curvature[i] = step.weight"),
        ],
        "soft_relu/per_feature_cpu.cpp": [
            ("- terms.log_slope) / terms.slope", "+ terms.log_slope) / terms.slope"),
            ("period - at % period);", "period);"),
            ("score_loop(tail.elements, tail_score.elements", "score_loop(tail.elements, tail.elements"),
            ("start, rows * n, f);\n    });", "0, rows * n, f);\n    });"),
        ],
    },
    "determinant": {
        "determinant/cpu.cpp": [
            ("std::abs(rows[r * width + c]) > std::abs(rows[pivot * width + c])", "r < c"),
            ("log += std::log(std::abs(value));", "log += std::abs(value);"),
            ("log += rows[i] - rows[i];", "log += 0;"),
            ("to[(i * n + c) * n + r]", "to[(i * n + r) * n + c]"),
            ("strides[d] = count, count *= matrix.size(d)", "strides[d] = 1, count *= matrix.size(d)"),
            ("row[j] -= factor * own[j]", "row[j] -= factor * own[c]"),
            (
                "const Tensor dense = in_format(matrix, MemoryFormat::Contiguous);",
                "const Tensor dense = matrix;",
            ),
        ],
    },
    "staircase": {
        "staircase/math.h": [
            ("s * (gy - step.twice_steepness", "s * (gy + step.twice_steepness"),
            ("(q == 0 ? Real(0) : far) + s * h", "far + s * h"),
            ("t * gy + Real(0.5)", "t * gy - Real(0.5)"),
        ],
        "staircase/backward.h": [
            ("(g == 0 ? Real(0) : xg) + h[i]", "(g == 0 ? Real(0) : xg)"),
            ("Real(-a * b * of[2])", "Real(a * b * of[2])"),
            ("Real(a * of[1])", "Real(of[1])"),
            ("sums[i % size] += sums[i]", "sums[i % size] = sums[i]"),
        ],
        "staircase/layout.h": [
            ("interleaved ? features : 1;", "1;"),
            ("part * length_;", "part;"),
        ],
        "staircase/tile.h": [
            ("if (t.length == 1) return f(0, t.offset, t.runs, t.run_stride);", "if (t.length == 1) return;"),
            ("sums[(t.sample + r) * stride] += sum;", "sums[(t.sample + r) * stride] = sum;"),
        ],
        "staircase/solve.h": [
            ("y - y == 0 ? x : y", "x"),
            ("far | (halley != halley) ? Real(0)", "halley != halley ? Real(0)"),
            ("at.derivative - at.curvature * last", "at.derivative"),
            ("s.high = residual < 0 ? s.x : s.high;", "s.high = residual > 0 ? s.x : s.high;"),
            ("return x + (derivative - derivative);", "return x;"),
        ],
        "staircase/inverse_cpu.cpp": [
            ("place <= unsorted[i] ? 1 : 0", "place < unsorted[i] ? 1 : 0"),
            ("h[i] = -h[i] * reciprocal", "h[i] = h[i] * reciprocal"),
            ("h[i] * curvature[i] - g[i]", "-g[i]"),
        ],
        "common/elementary.h": [
            ("flat ? Real(0) : slope}", "slope}"),
            ("half * part + (half - Real(0.5))", "scale * part * half + (half - Real(0.5))"),
            ("+ 0 * x;", ";"),
            ("^ sign))", "))"),
        ],
    },
    "soft_relu_per_feature": {
        "soft_relu/per_feature.h": [
            ("right ? Real(0) : maximum(z, -most)", "right ? z : Real(0)"),
            ("(right ? e : Real(1))", "(right ? Real(1) : e)"),
            ("slope * near * (e", "-slope * near * (e"),
            ("right ? near : -near", "near"),
            ("maximum(-far, minimum(z, far))", "z"),
            ("(magnitude * (e", "(z * (e"),
            ("to.sums[2] = -to.gradient, to.sums[3] = -gy;", "to.sums[2] = to.gradient, to.sums[3] = -gy;"),
            ("to.sums[2] = gx, to.sums[3] = to.gradient;", "to.sums[2] = to.gradient, to.sums[3] = gx;"),
            ("(s.z_of_branch >= 0) != (p.inverse_sharpness < 0)", "s.x >= p.u0"),
            ("-to.gradient, -gl);", "-to.gradient, gl);"),
            ("sum * (1 - r) / (k * k)", "sum / (k * k)"),
        ],
        "soft_relu/per_feature_cpu.cpp": [
            ("place / run % features", "place % features"),
            ("if (++passes % kFlush == 0) flush();\n    }\n  }\n  for", "passes = 0;\n    }\n  }\n  for"),
            ("row * n + i;\n        backward_run", "row * n;\n        backward_run"),
            ("+= of_tail[k * kRegister + l]", "= of_tail[k * kRegister + l]"),
            ("unit < units; ++unit) sum +=", "unit < 1; ++unit) sum +="),
        ],
        "soft_relu/inverse.h": [
            ("const bool mirrored = ratio > 1;", "const bool mirrored = false;"),
            ("mirrored ? -other * r : other", "mirrored ? other * r : other"),
            ("right = mirrored ? Real(ratio) : Real(1)", "right = Real(1)"),
        ],
    },
    "mixture_log_prob": {
        "mixture/math.h": [
            ("kRate = 0.84932180028801904272", "kRate = 0.8493218"),
            ("kHalfLog2Pi = 0.91893853320467274178", "kHalfLog2Pi = 0.9189385"),
        ],
        "mixture/op.h": [
            ("kept_of(2, p.samples())", "kept_of(p.samples(), 2)"),
        ],
        "mixture/cpu.cpp": [
            ("log2 < 0 ? kRate / e : kRate * e", "kRate * e"),
            ("log_weights[k] - kHalfLog2Pi * dimension", "log_weights[k] - kHalfLog2Pi"),
            ("log -= log_scales", "log += log_scales"),
            ("largest = maximum(log, largest);", "largest = maximum(1e6, largest);"),
            (
                "assign(groups * kGroup, -std::numeric_limits<Real>::infinity())",
                "assign(groups * kGroup, Real(0))",
            ),
            ("squares[j][i] += u * u + v * v;", "squares[j][i] = u * u + v * v;"),
            ("if (d == c.dimension) return;", "return;"),
            (
                "std::fill_n(top, kTile, std::numeric_limits<Real>::lowest());",
                "std::fill_n(top, kTile, Real(0));",
            ),
            ("scale[i] = exp2_or_zero(top[i] - largest);", "scale[i] = 1;"),
            ("Real pull = pulls[i] * scale[i];", "Real pull = pulls[i];"),
            ("((at.mean[j] - x[i]) * at.rate[j])", "(at.mean[j] - x[i])"),
            ("std::fill(pulls.begin(), pulls.end(), Real(0));", ""),
            ("share[i] = sum == 0 ? Real(0) : 1 / sum;", "share[i] = 1 / sum;"),
            ("shares.assign(tops.size(), Real(0));", "shares.assign(tops.size(), Real(1));"),
            ("kept[count + i] * grad[i]", "kept[count + i]"),
            ("weight - r[i] - top[i]", "weight - r[i]"),
            ("of_scale += ru * u;", "of_scale += ru;"),
            ("r[i] == 0 ? Real(0) : (column[i] - mean) * rate", "(column[i] - mean) * rate"),
            ("2 * kLog2 * c.rates[i] * *total++", "2 * kLog2 * *total++"),
            ("*total++ - of_weight", "*total++"),
        ],
        "common/elementary.h": [
            ("x < -Format<Real>::bias * 4 / 5 ? Real(0) : power", "power"),
        ],
    },
    "circulant_logdet": {
        "circulant_logdet/math.h": [
            ("row == 0 || 2 * row == rows ? 1 : 2}", "row == 0 ? 1 : 2}"),
            ("index / half * (columns / 2)", "index / half * (columns - 1)"),
            ("1 + 4 * strip + offset % width", "4 * strip + offset % width"),
            ("2 * tap - (taps - 1)", "2 * tap - taps"),
        ],
        "circulant_logdet/spectrum.h": [
            ("listed ? f.weight : 0", "f.weight"),
            ("weight[t] - weight[count - 1 - t]", "weight[t] + weight[count - 1 - t]"),
            (
                "if (cosines > sines) folded[sines] = weight[sines];",
                "if (cosines > sines) folded[sines] = 0;",
            ),
            ("(t < cosines ? weight : -weight)", "weight"),
            ("if (singular[l]) weights[l] = 0;", ""),
            ("invalid[l] += q * 0;", ""),
            (
                "(0.5 * double(square_exponent[l]) + double(scale_exponent[l]))",
                "(0.5 * double(square_exponent[l]))",
            ),
        ],
        "circulant_logdet/eliminate.cpp": [
            ("scale / square", "1 / square"),
            ("sum[r][c].re -= z.im", "sum[r][c].re += z.im"),
            ("if (inverse) restore_columns(m, exchanges);", ""),
            (
                "Mask<S> open = load<S>(m.magnitude(k)) < enough;",
                "Mask<S> open = load<S>(m.magnitude(k)) < 0;",
            ),
        ],
        "circulant_logdet/cpu.cpp": [
            ("frequency <= Tail::lanes", "frequency <= Tail::lanes + 1"),
        ],
    },
    "circular_conv_inverse": {
        "circular_conv_inverse/fourier.h": [
            ("{across.im, -across.re}", "{-across.im, across.re}"),
            ("roots + 2 * (j * t % radix)", "roots + 2 * (j * t % 2)"),
            (
                "for (int64_t t = 0; t < radix; ++t) add(q * t, left);",
                "for (int64_t t = 0; t < radix; ++t) add(q, left);",
            ),
            ("R(-root[1])", "R(root[1])"),
            ("f.weight == 2 && 2 * f.column % g.columns == 0", "false"),
            ("ComplexVector<S>{-im, re}", "ComplexVector<S>{im, re}"),
            (
                "ComplexVector<S>{(a.im + b.im) * h, (b.re - a.re) * h}",
                "ComplexVector<S>{(a.im + b.im) * h, (a.re - b.re) * h}",
            ),
            ("ComplexVector<S>{b.im - a.re, a.im + b.re}", "ComplexVector<S>{b.im + a.re, a.im + b.re}"),
        ],
        "circular_conv_inverse/product.h": [
            ("im[r][v] -= x[v] * b;", "im[r][v] += x[v] * b;"),
            ("re[r][v] -= y[v] * b;", "re[r][v] += y[v] * b;"),
            ("c + lanes < columns; c += 2 * lanes", "c + 2 * lanes < columns; c += 2 * lanes"),
        ],
        "circular_conv_inverse/spectra.h": [
            ("re[l] = x * cosines + y * sines;", "re[l] = x * cosines - y * sines;"),
            ("a - (p.taps.rows - 1) / 2", "a - p.taps.rows / 2"),
            ("p.taps.columns % 2 == 0 ? f.column : 0", "p.taps.columns % 2 == 0 ? 0 : f.column"),
            ("f.weight);", "1);"),
            ("sum[t] -= im * phases[2 * t + 1];", "sum[t] += im * phases[2 * t + 1];"),
        ],
        "circular_conv_inverse/cpu.cpp": [
            ("adjoint ? row : 1, adjoint ? 1 : row", "adjoint ? 1 : row, adjoint ? row : 1"),
            ("frequencies() - frequency <= Tail::lanes", "frequencies() - frequency <= Tail::lanes + 1"),
            ("const bool singular = w.weights[l] == 0;", "const bool singular = false;"),
            ("t.numel() == size && t.is_contiguous()", "true"),
            ("return R(-std::accumulate", "return R(std::accumulate"),
            ("grad_logdet * R(p_.image())", "grad_logdet"),
            ("const double scale = -1.0", "const double scale = 1.0"),
            ("inverses + i * S::lanes * inverses_.frequency()", "inverses"),
            ("first_frequency = group * S::lanes", "first_frequency = 0 * group"),
            ("p_.grid.frequency(frequency).weight == 1", "p_.grid.frequency(frequency).weight == 2"),
        ],
    },
    "perpendicular": {
        "perpendicular/math.h": [
            ("uu > 0 ? ux / uu : 0", "ux / uu"),
            ("+ left * left * l.uu", "+ left * l.uu"),
            ("+ right * right * r.uu", ""),
        ],
        "perpendicular/measure.h": [
            ("at(tail.x) - at(tail.u) * a", "at(tail.x)"),
            (
                "left = at(x + i) - at(u + i) * a, residual +=",
                "left = at(x + i) + at(u + i) * a, residual +=",
            ),
        ],
        "perpendicular/direct.h": [
            ("ky * g.dilation_h * plane.width", "ky * plane.width"),
            (
                "i * g.stride_h * plane.width + j * g.stride_w",
                "i * g.stride_w * plane.width + j * g.stride_h",
            ),
            ("plane += g.padding_h * p.width + g.padding_w;", "plane += g.padding_h * p.width;"),
        ],
        "perpendicular/karatsuba.h": [
            ("of{first, first + second, second}", "of{first, first - second, second}"),
        ],
    },
}
