//! Lets a shared object that was built against a newer glibc load on an older one, when all it needs of the newer one are
//! other names of old functions. Edits a copy that the lab made; understands 64-bit little-endian ELF only.

/// Section types of the ELF standard and of GNU.
const DYNSYM: u32 = 11;
const VERSYM: u32 = 0x6fff_ffff;
const VERNEED: u32 = 0x6fff_fffe;
const WEAK: u16 = 2;

/// Points `__isoc23_NAME` at `NAME` of glibc's first version (each old name is the tail of the new one, so no string is
/// added) and marks the need of GLIBC_2.38 as weak. Returns how many symbols it changed, or `None` when the file is not what
/// it expects; then nothing may be relied on.
pub(super) fn relabel(bytes: &mut [u8]) -> Option<usize> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let sections = sections(bytes)?;
    let find = |kind| sections.iter().find(|section| section.kind == kind);
    let (symbols, versions, needs) = (find(DYNSYM)?, find(VERSYM)?, find(VERNEED)?);
    let strings = sections.get(usize::try_from(symbols.link).ok()?)?.offset;
    let base = soften(bytes, needs.offset, strings)?;
    let mut changed = 0;
    for index in 0..symbols.size / 24 {
        let at = symbols.offset + index * 24;
        let name = u32_at(bytes, at)?;
        if text_at(bytes, strings + usize::try_from(name).ok()?)?.starts_with(b"__isoc23_") {
            put(bytes, at, &(name + 9).to_le_bytes())?;
            put(bytes, versions.offset + index * 2, &base.to_le_bytes())?;
            changed += 1;
        }
    }
    Some(changed)
}

struct Section {
    kind: u32,
    offset: usize,
    size: usize,
    link: u32,
}

fn sections(bytes: &[u8]) -> Option<Vec<Section>> {
    let table = usize_at(bytes, 40)?;
    let (each, count) = (u16_at(bytes, 58)?, u16_at(bytes, 60)?);
    let read = |index: u16| {
        let at = table + usize::from(each) * usize::from(index);
        let (offset, size) = (usize_at(bytes, at + 24)?, usize_at(bytes, at + 32)?);
        Some(Section { kind: u32_at(bytes, at + 4)?, offset, size, link: u32_at(bytes, at + 40)? })
    };
    (0..count).map(read).collect()
}

/// Marks the need of the newer version as weak; returns the number under which the first version is known.
fn soften(bytes: &mut [u8], mut at: usize, strings: usize) -> Option<u16> {
    let mut base = None;
    loop {
        let (count, first, next) = (u16_at(bytes, at + 2)?, u32_at(bytes, at + 8)?, u32_at(bytes, at + 12)?);
        let mut entry = at + usize::try_from(first).ok()?;
        for _ in 0..count {
            let (flags, other) = (u16_at(bytes, entry + 4)?, u16_at(bytes, entry + 6)?);
            match text_at(bytes, strings + usize::try_from(u32_at(bytes, entry + 8)?).ok()?)? {
                b"GLIBC_2.2.5" => base = Some(other),
                b"GLIBC_2.38" => put(bytes, entry + 4, &(flags | WEAK).to_le_bytes())?,
                _ => {}
            }
            entry += usize::try_from(u32_at(bytes, entry + 12)?).ok()?;
        }
        if next == 0 {
            return base;
        }
        at += usize::try_from(next).ok()?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}

fn text_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    bytes.get(at..)?.split(|byte| *byte == 0).next()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..at.checked_add(value.len())?)?.copy_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_elf_is_left_alone() {
        let mut bytes = b"\x7fELF\x02\x01 and no more".to_vec();
        assert_eq!(super::relabel(&mut bytes), None);
        assert_eq!(bytes, b"\x7fELF\x02\x01 and no more");
    }
}
