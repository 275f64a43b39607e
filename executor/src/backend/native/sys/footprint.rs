//! How much memory this process takes while it only waits.

/// Gives back the code and the constants of this program that are in memory: what is needed again is mapped again, from the kernel's
/// cache of the file. Nothing that was written to is touched.
pub fn let_code_go() {
    extern "C" fn one(object: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the C library passes a description that is valid for the call, with as many headers as it says.
        let (base, headers) = unsafe {
            let object = &*object;
            (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
        };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            let (start, end) = (base + header.p_vaddr, base + header.p_vaddr + header.p_filesz);
            // What shares a page with other things stays. Pages are of 4 KiB, or of 16 or 64 on arm64.
            let page = 1 << 16;
            let (start, end) = (start.next_multiple_of(page), end & !(page - 1));
            if start < end {
                // SAFETY: a private mapping of a file that is never written to: reading it again gives the same (MADV_DONTNEED, madvise(2)).
                // It fails harmlessly.
                unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
            }
        }
        0
    }
    // SAFETY: the function has the type that is asked for, keeps nothing and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(one), std::ptr::null_mut()) };
}
