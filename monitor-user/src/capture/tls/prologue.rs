//! Where a probe at the begin of a function is cheap: the kernel emulates few instructions; any other is
//! stepped over with a trap of its own, which takes ten microseconds on a virtual machine.
//!
//! What is emulated: `push_setup_xol_ops` and `branch_setup_xol_ops` of `arch/x86/kernel/uprobes.c`.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use monitor_common::TlsCall;

use super::library::Function;

/// `ENDBR64`, where calls by address may arrive. It changes nothing.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Instructions before the first call of a function that only passes on what it is given: a dozen.
const INSTRUCTIONS_MAX: usize = 24;

/// Bytes of so many instructions, each of 15 at most.
pub(super) const PROLOGUE_BYTES: usize = 15 * INSTRUCTIONS_MAX;

/// Instructions that change no register but the stack pointer.
const READS: [Mnemonic; 4] = [Mnemonic::Endbr64, Mnemonic::Push, Mnemonic::Test, Mnemonic::Cmp];

/// Instructions that change their first operand and nothing else.
const WRITES: [Mnemonic; 5] =
    [Mnemonic::Sub, Mnemonic::Mov, Mnemonic::Xor, Mnemonic::Lea, Mnemonic::Movsxd];

/// Replaces the functions that read, and those that write, by what both forms of them call with the same
/// arguments, where a probe at that is cheaper; and moves probes behind `ENDBR64`. `code` gives what
/// stands at an address, `offset_of` where in the file it is.
pub(super) fn improve<'a>(
    calls: &mut Vec<(Function, u64)>,
    code: impl Fn(u64) -> Option<&'a [u8]>,
    offset_of: impl Fn(u64) -> Option<u64>,
) {
    for (plain, ex) in [(TlsCall::Read, TlsCall::ReadEx), (TlsCall::Write, TlsCall::WriteEx)] {
        let only = |wanted: TlsCall| {
            let mut found = calls.iter().filter(|(function, _)| function.call == wanted);
            found.next().filter(|_| found.next().is_none()).map(|(_, address)| *address)
        };
        let (Some(at), Some(ex_at)) = (only(plain), only(ex)) else { continue };
        let both = [at, ex_at].map(&code);
        let [Some(begin), Some(ex_begin)] = both else { continue };
        if is_cheap(begin) && is_cheap(ex_begin) {
            continue;
        }
        let Some(inner) = called(ex_begin, ex_at, false) else { continue };
        if called(begin, at, true) != Some(inner) || !code(inner).is_some_and(is_cheap) {
            continue;
        }
        let Some(offset) = offset_of(inner) else { continue };
        calls.retain(|(function, _)| function.call != plain && function.call != ex);
        calls.push((Function { call: ex, offset }, inner));
    }
    for (function, address) in calls {
        if code(*address).is_some_and(|code| code.starts_with(&ENDBR) && is_cheap(code)) {
            function.offset += ENDBR.len() as u64;
        }
    }
}

/// How far behind the begin of a function the kernel can go on without a step of its own, with registers and
/// stack as they were given: at an instruction that keeps a register, or a jump, behind such as only look.
/// 0 when there is none.
pub(super) fn cheap(code: &[u8]) -> u64 {
    const LOOKS: [Mnemonic; 3] = [Mnemonic::Endbr64, Mnemonic::Test, Mnemonic::Cmp];
    let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(INSTRUCTIONS_MAX) {
        let rest = usize::try_from(instruction.ip()).ok().and_then(|at| code.get(at..));
        if rest.is_some_and(|rest| is_jump(rest) || is_cheap(rest)) {
            return instruction.ip();
        }
        if !LOOKS.contains(&instruction.mnemonic()) {
            return 0;
        }
    }
    0
}

/// Whether code begins with a jump on a condition.
fn is_jump(code: &[u8]) -> bool {
    matches!(code, [0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..])
}

/// Whether a function begins by keeping a register, which is emulated.
fn is_cheap(code: &[u8]) -> bool {
    let code = code.strip_prefix(&ENDBR).unwrap_or(code);
    matches!(code, [0x50..=0x57, ..] | [0x41, 0x50..=0x57, ..])
}

/// What a function calls first, with what it was given: object, buffer, number of bytes, and where the
/// number goes. `plain`: the last is its own, and it may look at the number first, to refuse it or to make
/// it wider.
fn called(code: &[u8], address: u64, plain: bool) -> Option<u64> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut given_place = !plain;
    for instruction in decoder.into_iter().take(INSTRUCTIONS_MAX) {
        if instruction.code() == Code::Call_rel32_64 {
            return given_place.then(|| instruction.near_branch_target());
        }
        let mnemonic = instruction.mnemonic();
        // A jump away to where it refuses: a negative number of bytes.
        if READS.contains(&mnemonic) || plain && mnemonic == Mnemonic::Js {
            continue;
        }
        if !WRITES.contains(&mnemonic) {
            return None;
        }
        let Some(written) = written(&instruction) else { continue };
        let from = (instruction.op1_kind() == OpKind::Register).then(|| instruction.op1_register());
        let is_kept = match (written == Register::RDX, written == Register::RCX) {
            (true, _) => plain && from == Some(Register::EDX),
            (_, true) => {
                given_place = is_place_on_stack(&instruction);
                plain
            }
            _ => written != Register::RDI && written != Register::RSI,
        };
        if !is_kept {
            return None;
        }
    }
    None
}

/// The register that an instruction writes, when its first operand is one; the whole one for parts of
/// those that matter here.
fn written(instruction: &Instruction) -> Option<Register> {
    use Register::{
        CH, CL, CX, DH, DI, DIL, DL, DX, ECX, EDI, EDX, ESI, RCX, RDI, RDX, RSI, SI, SIL,
    };
    const PARTS: [(Register, [Register; 4]); 4] = [
        (RDI, [EDI, DI, DIL, DIL]),
        (RSI, [ESI, SI, SIL, SIL]),
        (RDX, [EDX, DX, DL, DH]),
        (RCX, [ECX, CX, CL, CH]),
    ];
    if instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let register = instruction.op0_register();
    let whole = PARTS.iter().find(|(_, parts)| parts.contains(&register));
    Some(whole.map_or(register, |(whole, _)| *whole))
}

/// `MOV RCX, RSP` or `LEA RCX, [RSP+…]`.
fn is_place_on_stack(instruction: &Instruction) -> bool {
    let is_stack = |register| register == Register::RSP || register == Register::RBP;
    if instruction.mnemonic() == Mnemonic::Lea {
        is_stack(instruction.memory_base()) && instruction.memory_index() == Register::None
    } else {
        instruction.mnemonic() == Mnemonic::Mov
            && instruction.op1_kind() == OpKind::Register
            && instruction.op1_register() == Register::RSP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian 12 builds OpenSSL 3: `SSL_read` at 0x100, `SSL_read_ex` at 0x140, what both call at 0.
    const INNER: &[u8] = &[0x41, 0x55, 0x41, 0x54, 0x55, 0x53];
    const PLAIN: &[u8] = &[
        0x48, 0x83, 0xec, 0x18, // sub rsp, 24
        0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0x00, 0x00, 0x00, // mov rax, fs:[40]
        0x48, 0x89, 0x44, 0x24, 0x08, // mov [rsp+8], rax
        0x31, 0xc0, // xor eax, eax
        0x85, 0xd2, // test edx, edx
        0x78, 0x2f, // js
        0x48, 0x89, 0xe1, // mov rcx, rsp
        0x48, 0x63, 0xd2, // movsxd rdx, edx
        0xe8, 0xdd, 0xfe, 0xff, 0xff, // call 0
    ];
    const EX: &[u8] = &[0x48, 0x83, 0xec, 0x08, 0xe8, 0xb7, 0xfe, 0xff, 0xff];

    fn improved(inner: &[u8], plain: &[u8], ex: &[u8]) -> Vec<(TlsCall, u64)> {
        let code = |address| match address {
            0 => Some(inner),
            0x100 => Some(plain),
            0x140 => Some(ex),
            _ => None,
        };
        let function = |call, address| (Function { call, offset: address + 0x1000 }, address);
        let mut calls = vec![
            function(TlsCall::Handshake, 0x200),
            function(TlsCall::Read, 0x100),
            function(TlsCall::ReadEx, 0x140),
        ];
        improve(&mut calls, code, |address| Some(address + 0x1000));
        calls.into_iter().map(|(function, _)| (function.call, function.offset)).collect()
    }

    const AS_BEFORE: [(TlsCall, u64); 3] =
        [(TlsCall::Handshake, 0x1200), (TlsCall::Read, 0x1100), (TlsCall::ReadEx, 0x1140)];

    #[test]
    fn what_both_call_takes_their_place() {
        let inner = [(TlsCall::Handshake, 0x1200), (TlsCall::ReadEx, 0x1000)];
        assert_eq!(improved(INNER, PLAIN, EX), inner);
        let marked = [&ENDBR, INNER].concat();
        let behind = [(TlsCall::Handshake, 0x1200), (TlsCall::ReadEx, 0x1004)];
        assert_eq!(improved(&marked, PLAIN, EX), behind);
    }

    #[test]
    fn what_is_not_sure_stays_as_it_is() {
        // What is called begins otherwise.
        assert_eq!(improved(EX, PLAIN, EX), AS_BEFORE);
        // The other form calls something else.
        let mut other = EX.to_vec();
        other[5] += 1;
        assert_eq!(improved(INNER, PLAIN, &other), AS_BEFORE);
        // It passes on another object: mov rdi, [rdi].
        let moved = [&[0x48, 0x8b, 0x3f], EX].concat();
        let mut moved_call = moved.clone();
        moved_call[8] -= 3;
        assert_eq!(improved(INNER, PLAIN, &moved_call), AS_BEFORE);
        // It passes on another place for the number: mov rcx, rsi.
        let mut place = PLAIN.to_vec();
        place[26] = 0xf1;
        assert_eq!(improved(INNER, &place, EX), AS_BEFORE);
        // It is cut.
        for end in 0..PLAIN.len() {
            assert_eq!(improved(INNER, &PLAIN[..end], EX), AS_BEFORE, "{end}");
        }
    }

    #[test]
    fn looks_are_passed_over() {
        // As Debian 12 builds `EVP_KDF_derive`: test rdi, rdi; je.
        assert_eq!(cheap(&[0x48, 0x85, 0xff, 0x74, 0x13, 0x48, 0x8b, 0x07]), 3);
        assert_eq!(cheap(&[&ENDBR[..], &[0x48, 0x85, 0xff, 0x0f, 0x84, 1, 0, 0, 0]].concat()), 7);
        assert_eq!(cheap(&[&ENDBR, INNER].concat()), 0);
        assert_eq!(cheap(INNER), 0);
        // What changes a register, or the stack, has to come after.
        assert_eq!(cheap(&[0x48, 0x83, 0xec, 0x18, 0x74, 0x13]), 0);
        assert_eq!(cheap(&[0x31, 0xff, 0x74, 0x13]), 0);
        assert_eq!(cheap(&[]), 0);
    }

    #[test]
    fn what_is_cheap_stays() {
        assert_eq!(improved(INNER, INNER, INNER), AS_BEFORE);
        let marked = [&ENDBR, INNER].concat();
        let behind =
            [(TlsCall::Handshake, 0x1200), (TlsCall::Read, 0x1104), (TlsCall::ReadEx, 0x1144)];
        assert_eq!(improved(INNER, &marked, &marked), behind);
    }
}
