//! Proves from the built object that the kernel side only watches (invariant 8): which program
//! types it holds, which helpers it calls, that it never writes to a packet's context, and that
//! packets are let through on every path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind,
};

/// Program types that may be there. None can change what it sees, but for the return value and the
/// context of the first two, and the context of probes: registers of the process, which kernels from
/// 6.18 on let them set. Both are looked at below. Sleepable probes (`uprobe.s`), which could call
/// more, are not among them.
const PROGRAM_TYPES: [&str; 5] =
    ["cgroup_skb/ingress", "cgroup_skb/egress", "tp_btf/", "uprobe", "uretprobe"];

/// Helpers that only read, or write to memory that is the programs' own.
const HELPERS: [(i32, &str); 21] = [
    (1, "map_lookup_elem"),
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (5, "ktime_get_ns"),
    (8, "get_smp_processor_id"),
    (14, "get_current_pid_tgid"),
    (16, "get_current_comm"),
    (26, "skb_load_bytes"),
    (46, "get_socket_cookie"),
    (79, "skb_cgroup_id"),
    (95, "sk_fullsock"),
    (96, "tcp_sock"),
    (107, "sk_storage_get"),
    (112, "probe_read_user"),
    (114, "probe_read_user_str"),
    (122, "get_netns_cookie"),
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
    (174, "get_attach_cookie"),
];
const RINGBUF_QUERY: i32 = 134;

/// Looks at the object file and prints what it proved.
///
/// # Errors
///
/// One line for the first thing that is not passive.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let proof = prove(&bytes).with_context(|| format!("{} is not passive", path.display()))?;
    println!("passive: {} programs, helpers: {}", proof.programs, proof.helpers.join(" "));
    Ok(())
}

/// What was looked at.
#[derive(Debug)]
struct Proof {
    programs: usize,
    helpers: Vec<&'static str>,
}

fn prove(object: &[u8]) -> anyhow::Result<Proof> {
    let code = Code::read(object)?;
    let mut helpers = BTreeSet::new();
    let mut programs = 0;
    let mut pending: Vec<(Function, Arguments)> = Vec::new();
    for (index, section) in code.sections.iter().enumerate() {
        if section.name == ".text" {
            continue;
        }
        ensure!(
            is_allowed(&section.name),
            "program type `{}` is not one that only watches",
            section.name
        );
        let mut arguments = [Value::Other; 5];
        arguments[0] = Value::Context;
        for &start in &section.functions {
            programs += 1;
            pending.push((Function { section: index, start }, arguments));
        }
    }
    ensure!(programs > 0, "there are no programs");
    // Functions are looked at again when a call with another kind of argument is found.
    let mut known: BTreeMap<Function, Arguments> = BTreeMap::new();
    while let Some((function, arguments)) = pending.pop() {
        let joined = known.get(&function).map_or(arguments, |old| {
            std::array::from_fn(|index| old[index].join(arguments[index]))
        });
        if known.insert(function, joined) == Some(joined) {
            continue;
        }
        let walk = Walk { code: &code, function, helpers: &mut helpers, calls: &mut pending };
        let section = &code.sections[function.section];
        walk.run(joined).with_context(|| format!("`{}`", section.name))?;
    }
    Ok(Proof { programs, helpers: helpers.into_iter().collect() })
}

/// Types that end in `/` may be followed by what they are attached to; the others are whole names, or
/// followed by a `/` and that.
fn is_allowed(section: &str) -> bool {
    PROGRAM_TYPES.iter().any(|allowed| {
        let rest = section.strip_prefix(allowed);
        rest.is_some_and(|rest| allowed.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    })
}

/// Kinds of the five argument registers.
type Arguments = [Value; 5];

/// Where a function begins: section, and instruction in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    section: usize,
    start: usize,
}

/// What a register may hold, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// Perhaps the context: the packet that the kernel shows, or the registers.
    Context,
    /// Certainly 1: "let it through".
    One,
    /// Anything else.
    Other,
}

impl Value {
    fn join(self, other: Value) -> Value {
        match (self, other) {
            (Value::Context, _) | (_, Value::Context) => Value::Context,
            (Value::One, Value::One) => Value::One,
            (Value::One | Value::Other, Value::One | Value::Other) => Value::Other,
        }
    }
}

/// Registers and stack slots at one instruction.
#[derive(Clone, Debug, PartialEq)]
struct State {
    registers: [Value; 11],
    /// By offset from the frame pointer; what is not in it is [`Value::Other`].
    stack: BTreeMap<i16, Value>,
}

impl State {
    fn join(&self, other: &State) -> State {
        let slots = self.stack.keys().chain(other.stack.keys());
        let at = |state: &State, slot| state.stack.get(slot).copied().unwrap_or(Value::Other);
        State {
            registers: std::array::from_fn(|i| self.registers[i].join(other.registers[i])),
            stack: slots.map(|slot| (*slot, at(self, slot).join(at(other, slot)))).collect(),
        }
    }
}

/// Walks every path of one function (an abstract interpretation to a fixed point).
struct Walk<'a> {
    code: &'a Code,
    function: Function,
    helpers: &'a mut BTreeSet<&'static str>,
    calls: &'a mut Vec<(Function, Arguments)>,
}

const FRAME_POINTER: usize = 10;

impl Walk<'_> {
    fn run(mut self, arguments: Arguments) -> anyhow::Result<()> {
        let mut registers = [Value::Other; 11];
        registers[1..6].copy_from_slice(&arguments);
        let mut states = BTreeMap::new();
        let mut pending = vec![(self.function.start, State { registers, stack: BTreeMap::new() })];
        while let Some((at, state)) = pending.pop() {
            let joined =
                states.get(&at).map_or_else(|| state.clone(), |old: &State| old.join(&state));
            if states.get(&at) == Some(&joined) {
                continue;
            }
            states.insert(at, joined.clone());
            self.step(at, joined, &mut pending).with_context(|| format!("instruction {at}"))?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        at: usize,
        mut state: State,
        next: &mut Vec<(usize, State)>,
    ) -> anyhow::Result<()> {
        let section = &self.code.sections[self.function.section];
        let instruction = *section.code.get(at).context("runs past its end")?;
        let Instruction { opcode, target, source, offset, immediate } = instruction;
        let jump =
            |by: i64| usize::try_from(at as i64 + 1 + by).context("jumps out of its section");
        match opcode & 0x07 {
            // LD: a 64-bit immediate takes two instructions. Legacy packet loads only read.
            0 => {
                state.registers[target] = Value::Other;
                next.push((at + if opcode == 0x18 { 2 } else { 1 }, state));
            }
            // LDX
            1 => {
                state.registers[target] = match source {
                    FRAME_POINTER => state.stack.get(&offset).copied().unwrap_or(Value::Other),
                    _ => Value::Other,
                };
                next.push((at + 1, state));
            }
            // ST and STX, atomic ones among them
            class @ (2 | 3) => {
                ensure!(
                    state.registers[target] != Value::Context,
                    "writes to the context: the packet, or registers of the process"
                );
                let value = if class == 3 { state.registers[source] } else { Value::Other };
                if target == FRAME_POINTER {
                    state.stack.insert(offset, value);
                } else {
                    ensure!(value != Value::Context, "lets the context out of sight");
                }
                next.push((at + 1, state));
            }
            // ALU and ALU64
            class @ (4 | 7) => {
                state.registers[target] = match opcode & 0xf8 {
                    0xb0 if immediate == 1 => Value::One,
                    0xb0 => Value::Other,
                    0xb8 if class == 7 || state.registers[source] == Value::One => {
                        state.registers[source]
                    }
                    _ if state.registers[target] == Value::Context => Value::Context,
                    _ => Value::Other,
                };
                next.push((at + 1, state));
            }
            // JMP and JMP32
            class => match opcode & 0xf0 {
                0x00 => {
                    let by = if class == 6 { i64::from(immediate) } else { i64::from(offset) };
                    next.push((jump(by)?, state));
                }
                0x80 => {
                    self.call(at, instruction, &state)?;
                    state.registers[..6].fill(Value::Other);
                    next.push((at + 1, state));
                }
                0x90 => self.exit(&state)?,
                _ => {
                    next.push((jump(i64::from(offset))?, state.clone()));
                    next.push((at + 1, state));
                }
            },
        }
        Ok(())
    }

    fn call(&mut self, at: usize, call: Instruction, state: &State) -> anyhow::Result<()> {
        const HELPER: usize = 0;
        const FUNCTION: usize = 1;
        match call.source {
            HELPER if call.immediate == RINGBUF_QUERY => {
                self.helpers.insert("ringbuf_query");
            }
            HELPER => {
                let helper = HELPERS.iter().find(|(id, _)| *id == call.immediate);
                let (_, name) =
                    helper.with_context(|| format!("calls helper {}", call.immediate))?;
                self.helpers.insert(name);
            }
            FUNCTION => {
                let function = self.code.callee(self.function.section, at, call.immediate)?;
                let arguments = std::array::from_fn(|index| state.registers[index + 1]);
                self.calls.push((function, arguments));
            }
            kind => bail!("calls a kernel function (kind {kind})"),
        }
        Ok(())
    }

    fn exit(&self, state: &State) -> anyhow::Result<()> {
        let section = &self.code.sections[self.function.section];
        let decides = section.name.starts_with("cgroup_skb/");
        ensure!(!decides || state.registers[0] == Value::One, "may hold a packet back");
        Ok(())
    }
}

/// One eBPF instruction (RFC 9669, 3).
#[derive(Clone, Copy, Debug)]
struct Instruction {
    opcode: u8,
    target: usize,
    source: usize,
    offset: i16,
    immediate: i32,
}

impl From<[u8; 8]> for Instruction {
    fn from(bytes: [u8; 8]) -> Instruction {
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Instruction {
            opcode,
            target: usize::from(registers & 0x0f).min(FRAME_POINTER),
            source: usize::from(registers >> 4).min(FRAME_POINTER),
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }
}

/// The executable sections of an object.
struct Code {
    sections: Vec<Section>,
    /// Index of `.text`, where functions that are called lie.
    text: Option<usize>,
}

struct Section {
    name: String,
    code: Vec<Instruction>,
    /// Instructions at which functions begin: outside of `.text`, programs; at least one.
    functions: BTreeSet<usize>,
    /// By instruction: offset in `.text` of the symbol that a call refers to.
    calls: BTreeMap<usize, u64>,
}

impl Code {
    fn read(bytes: &[u8]) -> anyhow::Result<Code> {
        let file = object::File::parse(bytes).context("not an object file")?;
        let mut sections = Vec::new();
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let data = section.data().context("reading a section")?;
            if data.is_empty() {
                continue;
            }
            let (instructions, rest) = data.as_chunks::<8>();
            ensure!(rest.is_empty(), "a section of half an instruction");
            let calls = section.relocations().filter_map(|(offset, relocation)| {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
                let symbol = file.symbol_by_index(symbol).ok()?;
                Some((usize::try_from(offset / 8).ok()?, symbol.address()))
            });
            let own = |symbol: &object::Symbol<'_, '_>| {
                symbol.section_index() == Some(section.index()) && symbol.kind() == SymbolKind::Text
            };
            // What no symbol names is looked at as well.
            let functions = file
                .symbols()
                .filter(own)
                .filter_map(|symbol| usize::try_from(symbol.address() / 8).ok())
                .chain([0])
                .collect();
            sections.push(Section {
                functions,
                name: section.name().context("a section's name")?.to_owned(),
                code: instructions.iter().copied().map(Instruction::from).collect(),
                calls: calls.collect(),
            });
        }
        let text = sections.iter().position(|section| section.name == ".text");
        Ok(Code { sections, text })
    }

    /// The function that a call goes to: behind a relocation, in `.text`; else in the same section.
    fn callee(&self, section: usize, at: usize, immediate: i32) -> anyhow::Result<Function> {
        let (section, base) = match self.sections[section].calls.get(&at) {
            Some(symbol) => (self.text.context("calls into a missing .text")?, *symbol as i64 / 8),
            None => (section, at as i64),
        };
        let start = usize::try_from(base + i64::from(immediate) + 1).context("calls to nowhere")?;
        Ok(Function { section, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r0 = 1; exit`
    const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

    fn check(section: &str, instructions: &[[u8; 8]]) -> anyhow::Result<()> {
        let section = Section {
            name: section.to_owned(),
            code: instructions.iter().copied().map(Instruction::from).collect(),
            functions: BTreeSet::from([0]),
            calls: BTreeMap::new(),
        };
        let code = Code { sections: vec![section], text: None };
        let mut arguments = [Value::Other; 5];
        arguments[0] = Value::Context;
        let function = Function { section: 0, start: 0 };
        let (mut helpers, mut calls) = (BTreeSet::new(), Vec::new());
        Walk { code: &code, function, helpers: &mut helpers, calls: &mut calls }.run(arguments)
    }

    fn refusal(section: &str, instructions: &[[u8; 8]]) -> String {
        format!("{:#}", check(section, instructions).unwrap_err())
    }

    #[test]
    fn the_checked_in_object_is_passive() {
        let object = fs::read(crate::ebpf::prebuilt()).unwrap();
        let proof = prove(&object).unwrap();
        assert!(proof.programs == 19 && proof.helpers.contains(&"skb_load_bytes"), "{proof:?}");
    }

    #[test]
    fn a_program_that_lets_everything_through_is_passive() {
        check("cgroup_skb/ingress", &PASS).unwrap();
    }

    #[test]
    fn a_path_that_holds_packets_back_is_found() {
        // if r2 == 0 goto +1; r0 = 1; exit: the jump skips the assignment.
        let jump = [0x15, 2, 1, 0, 0, 0, 0, 0];
        let refused = refusal("cgroup_skb/egress", &[jump, PASS[0], PASS[1]]);
        assert!(refused.contains("may hold a packet back"), "{refused}");
        let zero = [0xb7, 0, 0, 0, 0, 0, 0, 0];
        assert!(refusal("cgroup_skb/egress", &[zero, PASS[1]]).contains("hold a packet back"));
    }

    #[test]
    fn writing_to_the_context_is_found_through_copies_and_the_stack() {
        // r6 = r1; *(u64 *)(r10 - 8) = r6; r7 = *(u64 *)(r10 - 8); *(u32 *)(r7 + 8) = 0
        let spill = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x7b, 0x6a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x79, 0xa7, 0xf8, 0xff, 0, 0, 0, 0],
            [0x62, 0x07, 8, 0, 0, 0, 0, 0],
            PASS[0],
            PASS[1],
        ];
        assert!(refusal("cgroup_skb/ingress", &spill).contains("writes to the context"));
    }

    #[test]
    fn probes_may_not_set_registers_nor_sleep() {
        check("uprobe", &PASS).unwrap();
        // *(u64 *)(r1 + 80) = 0: the first result register of the process.
        let set = [[0x7a, 0x01, 80, 0, 0, 0, 0, 0], PASS[0], PASS[1]];
        assert!(refusal("uretprobe", &set).contains("registers of the process"));
        for section in ["uprobe", "uretprobe", "uprobe/libssl", "tp_btf/sock_send_length"] {
            assert!(is_allowed(section), "{section}");
        }
        for section in ["uprobe.s", "uprobe.multi", "kprobe", "fmod_ret/x", "xdp", "sk_msg"] {
            assert!(!is_allowed(section), "{section}");
        }
    }

    #[test]
    fn helpers_that_change_packets_and_kernel_functions_are_refused() {
        let store_bytes = [0x85, 0, 0, 0, 9, 0, 0, 0];
        assert!(refusal("tp_btf/x", &[store_bytes, PASS[1]]).contains("calls helper 9"));
        let kernel_function = [0x85, 0x20, 0, 0, 9, 0, 0, 0];
        assert!(refusal("tp_btf/x", &[kernel_function, PASS[1]]).contains("kernel function"));
    }
}
